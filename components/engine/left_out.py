"""What `pulumi up --target` or `--exclude` leaves out: the engine answers with what its state has."""

from __future__ import annotations

import pulumi

from components.engine.one_run import OfOneRun

_names: OfOneRun[set[str]] = OfOneRun(set)


class LeftOutError(Exception):
    """An object is as the last run made it, and what is declared for it now is not applied."""

    def __init__(self) -> None:
        super().__init__("left out of this run (--target, --exclude): as the last one made it")


def note(name: str) -> None:
    """Note that a component's own object is left out, and say so once."""
    if name not in names():
        _names.get().add(name)
        pulumi.log.warn(f"{name}: {LeftOutError()}")


def names() -> frozenset[str]:
    """Return the names of the components of which something is left out of this run."""
    return frozenset(_names.get())
