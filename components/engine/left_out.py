"""What `pulumi up --target` or `--exclude` leaves out: the engine answers with what its state has."""

from __future__ import annotations


class LeftOutError(Exception):
    """An object is as the last run made it, and what is declared for it now is not applied."""

    def __init__(self) -> None:
        super().__init__("left out of this run (--target, --exclude): as the last one made it")
