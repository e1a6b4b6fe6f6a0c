"""Which folders are a platform's own: only those are filled, and only those are removed.

MODELCAR_STATE may name a folder that holds other things, and one of them may be called `local`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from modelcar.errors import refuse

#: Lies in each folder that a platform's state is kept in.
MARK = "modelcar-platform"
#: What such folders of versions before 0.4.0 have, one or more of it.
FORMER_MARKS = ("slot", "plan.json", "kind.json", "platform.json")
#: What buildx and kubectl write there by `python -m local env`, also before there is a platform.
OF_CLIENTS = {"buildx", "kubectl"}


def is_ours(folder: Path) -> bool:
    """Tell whether a folder holds a platform's state, or nothing else than such a folder may."""
    if any((folder / name).exists() for name in (MARK, *FORMER_MARKS)):
        return True
    return folder.is_dir() and {path.name for path in folder.iterdir()} <= OF_CLIENTS


def make(folder: Path) -> None:
    """Make the folder of a platform's state, and mark it.

    Raises:
        InputError: it is there, and holds somebody else's files.
    """
    if folder.exists() and not is_ours(folder):
        raise refuse(
            "MODELCAR_STATE",
            f"{folder} holds files that no platform wrote",
            allowed="a folder in which this one is new, empty or a platform's",
            fix="set MODELCAR_STATE to another folder, for example /tmp/modelcar; or move these files away",
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()


def remove(folder: Path) -> bool:
    """Remove a platform's folder and return True; False, and nothing is removed, where it is another's."""
    if not folder.exists():
        return True
    if not is_ours(folder):
        return False
    shutil.rmtree(folder, ignore_errors=True)
    return True
