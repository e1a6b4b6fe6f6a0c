"""Folders of people: `~` and `~NAME` at the beginning of a path."""

from __future__ import annotations

from pathlib import Path


def in_home(path: str) -> Path:
    """Return a path with the home folder that it begins with; as it is, where there is no such home.

    A container's user may have none: what would lie there is not there.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
