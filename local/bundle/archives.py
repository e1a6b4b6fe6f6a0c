"""Archives of a bundle: `.tar.xz` of files in a fixed order, the same bytes from the same files."""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from local.bundle.parts import sha256_of
from modelcar.tar_members import is_plain

#: How much of the files goes into one archive, in bytes. Smaller ones pack worse; larger ones leave
#: processors idle where they are unpacked. A larger file has one of its own.
CHUNK = 96 * 2**20
#: xz -6: of a Go program of 70 MB it makes 13.2 MB in 28 s; -3 makes 14.7 MB in 12 s (measured).
PRESET = 6
DISK_BLOCK = 4096


@dataclass(frozen=True)
class Entry:
    """A file to be packed. `name` below the folder that it is unpacked to; a link keeps its target."""

    name: str
    path: Path
    executable: bool = False
    link: str = ""

    @property
    def size(self) -> int:
        """Return its bytes."""
        return 0 if self.link else self.path.stat().st_size

    @property
    def room(self) -> int:
        """Return the bytes that it takes on a disk, whole blocks."""
        return -(-self.size // DISK_BLOCK) * DISK_BLOCK


def entries(folder: Path, prefix: str = "") -> Iterator[Entry]:
    """Yield what is below a folder, without Python's bytecode, in a fixed order.

    Args:
        folder: to be packed.
        prefix: put before each name, with a slash at its end.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if "__pycache__" in name.parts or (path.is_dir() and not path.is_symlink()):
            continue
        link = str(path.readlink()) if path.is_symlink() else ""
        executable = not link and bool(path.stat().st_mode & 0o100)
        yield Entry(f"{prefix}{name.as_posix()}", path, executable, link)


def chunks(files: Sequence[Entry], limit: int = CHUNK) -> Iterator[list[Entry]]:
    """Yield the files in groups of about `limit` bytes, each to be an archive."""
    group: list[Entry] = []
    held = 0
    for entry in sorted(files, key=lambda entry: entry.name):
        if group and held + entry.size > limit:
            yield group
            group, held = [], 0
        group.append(entry)
        held += entry.size
    if group:
        yield group


def key(files: Sequence[Entry], machine: str) -> str:
    """Return what an archive's content depends on: by it one that was packed before is found again."""
    digest = hashlib.sha256(f"1 {PRESET} {_filters(machine)}\n".encode())
    for entry in files:
        content = entry.link or sha256_of(entry.path)
        digest.update(f"{entry.name}\0{entry.executable}\0{bool(entry.link)}\0{content}\n".encode())
    return digest.hexdigest()


def _filters(machine: str) -> list[dict[str, int]]:
    """xz's filter for machine code makes programs 3 % smaller (measured)."""
    code = [{"id": lzma.FILTER_X86}] if machine == "x86_64" else []
    return [*code, {"id": lzma.FILTER_LZMA2, "preset": PRESET}]


def pack(files: Sequence[Entry], target: Path, machine: str) -> None:
    """Write an archive: names in order, no times, everything root's."""
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        _write(files, part, machine)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)  # on a disk that is full, what was written of it would stay in the way


def _write(files: Sequence[Entry], part: Path, machine: str) -> None:
    with (
        lzma.LZMAFile(part, "w", check=lzma.CHECK_CRC64, filters=_filters(machine)) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for entry in files:
            info = tarfile.TarInfo(entry.name)
            info.mode = 0o755 if entry.executable else 0o644
            if entry.link:
                info.type, info.linkname = tarfile.SYMTYPE, entry.link
                tar.addfile(info)
                continue
            info.size = entry.size
            with entry.path.open("rb") as file:
                tar.addfile(info, file)


def unpack(packed: io.RawIOBase, folder: Path) -> int:
    """Unpack an archive, and return the number of its files.

    A file that is there is replaced, never written to: a program that runs from it goes on.

    Raises:
        ValueError: a name leads out of the folder, or is neither a file nor a link.
        lzma.LZMAError, tarfile.TarError, OSError: the archive is damaged, or the disk is full.
    """
    count, root = 0, folder.resolve()
    made: set[Path] = set()
    source = cast(BinaryIO, io.BufferedReader(packed, 2**20))
    with lzma.LZMAFile(source) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
        for info in tar:
            target = root / _inside(info.name)
            if target.parent not in made:
                _require_below(root, target.parent, info.name)
                target.parent.mkdir(parents=True, exist_ok=True)
                made.add(target.parent)
            part = target.with_name(f"{target.name}.part")
            if info.issym():
                _inside(os.path.normpath(PurePosixPath(info.name).parent / info.linkname))
                _require_below(root, target.parent / info.linkname, info.name)
                made.clear()  # it may have taken the place of another one, which led elsewhere
                part.unlink(missing_ok=True)
                part.symlink_to(info.linkname)
            elif is_plain(info) and (content := tar.extractfile(info)):
                with part.open("wb") as file:
                    shutil.copyfileobj(content, file, 2**20)
                    os.fchmod(file.fileno(), 0o755 if info.mode & 0o100 else 0o644)
            else:
                raise ValueError(f"{info.name!r} is neither a file nor a link")
            part.replace(target)
            count += 1
    return count


def _require_below(root: Path, path: Path, name: str) -> None:
    """Follow the links that are there: `link/..` is not where it looks to be."""
    if not path.resolve().is_relative_to(root):
        raise ValueError(f"{name!r} leads out of the folder")


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"{name!r} leads out of the folder")
    return name
