"""A problem with a setting, by its full key."""

from __future__ import annotations

from modelcar.errors import Problem

NAMESPACE = "modelcar"


def problem(key: str, value: object, allowed: str, fix: str) -> Problem:
    """Return a problem with one of the stack's own keys."""
    return Problem(f"{NAMESPACE}:{key}", str(value), allowed, fix)


def top_of(place: str) -> str:
    """Return the key of the stack that a place is in: of `models[0].cpu` it is `models`."""
    return place.partition(".")[0].partition("[")[0]
