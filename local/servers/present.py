"""Packages that a machine has already, on which a server's environment may rest.

A machine for GPUs often has torch and NVIDIA's libraries, 4 GB of the environment's 6. Where
MODELCAR_PRESENT_PACKAGES names their folder (a site-packages), what it has in the version of the lock is
not installed again, and a .pth file puts the folder behind the environment's own packages.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from local.bundle.packages import another_python, installed, read_lock, split_present
from modelcar.errors import refuse

#: Names the folder.
VARIABLE = "MODELCAR_PRESENT_PACKAGES"
#: What puts it behind the environment's own packages; Python reads it at each start (docs: site).
PTH = "present-packages.pth"


def present_folder(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the folder, None where no variable names one.

    Raises:
        InputError: it is no folder, or one of another version of Python.
    """
    value = environment.get(VARIABLE, "")
    if not value:
        return None
    folder = Path(value)
    own = f"python{sys.version_info.major}.{sys.version_info.minor}"
    other = another_python(folder)
    if folder.is_absolute() and folder.is_dir() and not other:
        return folder
    why = f"packages of {other}" if other else "no folder" if folder.is_absolute() else "not absolute"
    raise refuse(
        VARIABLE,
        f"{value} ({why})",
        allowed=f"the absolute path of a folder of packages of {own}",
        fix="unset it, or set it to what this prints with the Python that has them: "
        "python3 -c 'import sysconfig; print(sysconfig.get_path(\"purelib\"))'",
    )


def split(lock: str, folder: Path | None) -> tuple[str, list[str]]:
    """Return what of a lock has to be installed, and what the folder has already, as NAME==VERSION.

    A local part of a version does not count: torch 2.11.0+cu130 is torch 2.11.0 from another index.
    """
    have = installed(folder) if folder else {}
    kept, there = split_present(read_lock(lock), have)
    return "\n".join(pin.text for pin in kept) + "\n", [pin.specifier for pin in there]


def put_behind(environment: Path, folder: Path | None) -> None:
    """Let an environment find the folder's packages after its own, or no longer."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = environment / "lib" / version / "site-packages"
    if folder is None:
        (packages / PTH).unlink(missing_ok=True)
    else:
        packages.mkdir(parents=True, exist_ok=True)
        (packages / PTH).write_text(f"{folder}\n")
