"""Warnings that a program's run shows once, however many resources they are about."""

from __future__ import annotations

from collections.abc import Iterable

import pulumi

_told: set[str] = set()


def warn_once(lines: Iterable[str]) -> None:
    """Warn of each line that this run has not shown yet."""
    for line in lines:
        if line not in _told:
            _told.add(line)
            pulumi.log.warn(line)
