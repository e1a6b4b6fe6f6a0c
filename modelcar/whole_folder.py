"""Folders that this program makes: each appears complete or not at all, and replaces nobody else's files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from modelcar.errors import refuse


def appear(destination: Path, write: Callable[[Path], None], holds: Callable[[Path], bool]) -> None:
    """Let `write` fill a folder beside the destination, and put that in its place in one step.

    Args:
        destination: the folder; its parents are made. What is there is replaced.
        write: gets an empty folder.
        holds: tells whether a folder is what would be written: another process may be faster.

    Raises:
        OSError: the disk is full, or the place cannot be written to. Nothing is left then.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{destination.name}-", dir=destination.parent))
    try:
        made = staging / "new"
        made.mkdir()
        made.chmod(0o755)  # whatever the umask: other users may read it
        write(made)
        for path in made.iterdir():
            path.chmod(0o644)
        if destination.exists():
            destination.rename(staging / "old")  # a folder with files in it cannot be replaced in one step
        try:
            made.rename(destination)
        except OSError:
            if not holds(destination):
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def refuse_foreign(destination: Path, generator: str) -> None:
    """Refuse a place that holds what the generator did not make.

    Args:
        destination: the place.
        generator: stands in the head of every safetensors file that it writes.

    Raises:
        InputError: there is a file, or a folder with other files in it.
    """
    if not destination.exists() and not destination.is_symlink():
        return
    found = "exists and is not a folder"
    if destination.is_dir():
        if not any(destination.iterdir()):
            return
        for path in sorted(destination.glob("*.safetensors"))[:1]:
            with suppress(OSError), path.open("rb") as weights:
                if generator.encode() in weights.read(4096):  # metadata stand first in the header
                    return
        found = "holds files that this program did not make"
    raise refuse(
        str(destination),
        found,
        allowed=f"a new or empty folder, or one with a {generator.removeprefix('modelcar ')} in it",
        fix="choose another folder, or remove what is there yourself",
    )
