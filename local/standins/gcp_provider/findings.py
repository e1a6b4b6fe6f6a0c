"""What is wrong with an input, where, and how that is told; and looking at inputs that may be unknown."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from local.standins.differences import property_path
from local.standins.properties import UNKNOWN, Secret, plain
from modelcar.errors import Problem

Path = tuple[str | int, ...]
_SHOWN_LENGTH = 120


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: the path of the property, what is allowed there, and the fix.

    The value is looked up by the path when the finding is told, so that no rule can print a secret.
    """

    path: Path
    allowed: str
    fix: str

    def problem(self, inputs: dict[str, Any]) -> Problem:
        """Return it with the value that the inputs (decoded, with secret marks) have there."""
        value = _shown(inputs, self.path)
        # What is allowed may name the value of another property ("at most maxNodeCount, which is 3").
        allowed, fix = (_masked(text, _secrets(inputs)) for text in (self.allowed, self.fix))
        return Problem(property_path(self.path), value, allowed, fix)


def _shown(inputs: Any, path: Path) -> str:
    value = inputs
    for part in path:
        if isinstance(value, dict) and part in value:
            value = value[str(part)]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            return "[secret]" if isinstance(value, Secret) else "not given"
    if isinstance(value, Secret):
        return "[secret]"
    text = json.dumps(value, default=lambda item: "[secret]" if isinstance(item, Secret) else "[unknown]")
    return text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 1] + "…"


def _secrets(value: Any, *, inside: bool = False) -> Iterator[str]:
    """Yield every plain value inside of secrets, as text."""
    if isinstance(value, Secret):
        yield from _secrets(value.value, inside=True)
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _secrets(item, inside=inside)
    elif inside and value is not None and value is not UNKNOWN and str(value):
        yield str(value)


def _masked(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "[secret]", text)
    return text


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `did you mean X?`, or "" where nothing known is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]}? " if near else ""


def at(value: Any, *path: str | int) -> Any:
    """Return the plain value at a path, None where it is not given or not known."""
    for part in path:
        value = plain(value) if isinstance(value, Secret) else value
        if isinstance(value, dict) and isinstance(part, str):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            return None
    value = plain(value)
    return None if value is UNKNOWN else value


def text_at(value: Any, *path: str | int) -> str | None:
    """Return the text at a path, None where it is not given, not known or no text."""
    found = at(value, *path)
    return found if isinstance(found, str) else None


def number_at(value: Any, *path: str | int) -> int | None:
    """Return the whole number at a path, None where it is not given, not known or none."""
    found = at(value, *path)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def true_at(value: Any, *path: str | int) -> bool:
    """Say whether the value at a path is known to be true."""
    return at(value, *path) is True


def given(value: Any, *path: str | int) -> bool:
    """Say whether something is given at a path, known or not."""
    parent = at(value, *path[:-1]) if len(path) > 1 else plain(value)
    return isinstance(parent, dict) and parent.get(str(path[-1])) is not None


def items_at(value: Any, *path: str | int) -> Iterator[tuple[Path, Any]]:
    """Yield (path, item) for every known item of the list at a path."""
    found = at(value, *path)
    if isinstance(found, list):
        for index, item in enumerate(found):
            if item is not UNKNOWN:
                yield (*path, index), item
