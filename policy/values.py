"""Reading a resource's properties, of which a preview does not know all.

Properties here are plain dicts, lists, strings, numbers and booleans, as the provider gets them (camelCase
keys). A value that a preview does not know is UNKNOWN. A rule says nothing about it: the engine asks again
in the update, where every input is known before the resource is created.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final


class Unknown:
    """The type of UNKNOWN."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = Unknown()


def at(value: Any, *keys: str) -> Any:
    """Return what is at the end of the keys: None where a step is missing, UNKNOWN where one is unknown."""
    for key in keys:
        if value is UNKNOWN:
            return UNKNOWN
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def entries(value: Any) -> Iterator[tuple[int, Any]]:
    """Yield the known entries of a list with their positions; nothing where there is no list."""
    if isinstance(value, list):
        for number, entry in enumerate(value):
            if entry is not UNKNOWN:
                yield number, entry


def has_unknown(value: Any) -> bool:
    """Tell whether the value, or an entry of the list that it is, is unknown."""
    return value is UNKNOWN or (isinstance(value, list) and any(entry is UNKNOWN for entry in value))


def whole_number(value: Any) -> int | None:
    """Return a number without its fraction (numbers come as floats), also one in digits; None for others."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return int(value)
    return int(value) if isinstance(value, str) and value.isdecimal() else None


def is_true(value: Any) -> bool:
    """Tell whether a value is true, as a boolean or as a template writes it."""
    return value is True or (isinstance(value, str) and value.strip().lower() == "true")
