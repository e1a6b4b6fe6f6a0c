"""Free disk where folders are, or will be, with what several of them on one disk take together."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30


@dataclass(frozen=True)
class Need:
    """What a folder is to take. name: what sets the folder, a variable of the environment."""

    name: str
    folder: Path
    size: int


@dataclass(frozen=True)
class Disk:
    """A disk, the bytes that are free there, and what it is asked for."""

    free: int
    needs: tuple[Need, ...]

    @property
    def wanted(self) -> int:
        """Bytes of all needs together."""
        return sum(need.size for need in self.needs)

    @property
    def names(self) -> str:
        """What sets the folders that are there, each once."""
        return ", ".join(dict.fromkeys(need.name for need in self.needs))


def existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def disks(needs: Iterable[Need]) -> list[Disk]:
    """Return the disks that these folders are on, or will be."""
    found: dict[int, list[Need]] = {}
    for need in needs:
        found.setdefault(existing(need.folder).stat().st_dev, []).append(need)
    return [
        Disk(shutil.disk_usage(existing(together[0].folder)).free, tuple(together))
        for together in found.values()
    ]


def size_of(folder: Path) -> int:
    """Return the bytes of disk that a folder's files take; it may take seconds where there are many."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512  # noqa: PTH118 (speed matters)
    return total
