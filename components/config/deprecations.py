"""Settings and components' arguments that go in a later release, announced at least one release before.

One table says what goes, when, and what to set instead. The program warns of each that a stack uses, in
previews and `up`; `make doctor` and docs/upgrading.md say it too. An entry stays when its setting is gone:
the refusal of the unknown key then says what to set.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from components.config.problems import NAMESPACE


@dataclass(frozen=True)
class Deprecation:
    """What goes.

    name: `modelcar:KEY` or `modelcar:KEY.FIELD` for a setting, `CLASS.ARGUMENT` for a component's argument.
    since: release that warns first, as 0.4.0.
    removed: release that does not take it any more, as 0.5.0.
    instead: what to do, as an instruction: `set modelcar:other`.
    """

    name: str
    since: str
    removed: str
    instead: str

    @property
    def setting(self) -> tuple[str, ...] | None:
        """The setting's keys from the outside in; None for a component's argument."""
        space, _, keys = self.name.partition(":")
        return tuple(keys.split(".")) if space == NAMESPACE and keys else None

    @property
    def argument(self) -> tuple[str, str] | None:
        """Class and name of a component's argument; None for a setting."""
        owner, _, name = self.name.partition(".")
        return None if self.setting else (owner, name)


#: The oldest first. None is deprecated at present.
DEPRECATIONS: tuple[Deprecation, ...] = ()


def in_settings(
    config: Mapping[str, str], table: Sequence[Deprecation] | None = None
) -> Iterator[tuple[str, Deprecation]]:
    """Yield the deprecated settings that a stack has, each with its place: `modelcar:models[1].KEY`.

    Args:
        config: every configuration value by full key, as Pulumi hands them over (strings).
        table: what is deprecated; `DEPRECATIONS` by default.
    """
    own = {key.partition(":")[2]: value for key, value in config.items() if key.startswith(f"{NAMESPACE}:")}
    values = {key: _value(text) for key, text in own.items()}
    entries = values.get("models")
    for entry in DEPRECATIONS if table is None else table:
        if not (keys := entry.setting):
            continue
        if _has(values, keys):
            yield entry.name, entry
        for number, model in enumerate(entries if isinstance(entries, list) else []):
            if _has(model, keys):
                yield f"{NAMESPACE}:models[{number}].{'.'.join(keys)}", entry


def in_arguments(args: object, table: Sequence[Deprecation] | None = None) -> Iterator[str]:
    """Yield the warning of each deprecated argument that was given to a component.

    Args:
        args: the component's arguments, a dataclass or a section of settings.
        table: what is deprecated; `DEPRECATIONS` by default.
    """
    for entry in DEPRECATIONS if table is None else table:
        if entry.argument and entry.argument[0] == type(args).__name__ and _given(args, entry.argument[1]):
            yield warning(entry.name, entry)


def warning(place: str, entry: Deprecation) -> str:
    """Return what a user is told of a deprecated setting at its place."""
    return f"{place} is deprecated since {entry.since} and goes in {entry.removed}: {entry.instead}"


def removed(key: str, table: Sequence[Deprecation] | None = None) -> Deprecation | None:
    """Return the entry of a top-level key that is not known any more; None if there never was one."""
    entries = DEPRECATIONS if table is None else table
    return next((entry for entry in entries if entry.setting == (key,)), None)


def page(table: Sequence[Deprecation] | None = None) -> str:
    """Return the table of docs/upgrading.md."""
    entries = DEPRECATIONS if table is None else table
    if not entries:
        return "Nothing is deprecated at present.\n"
    rows = [f"| `{row.name}` | {row.since} | {row.removed} | {row.instead} |" for row in entries]
    return "\n".join(["| what | deprecated in | removed in | instead |", "|---|---|---|---|", *rows]) + "\n"


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _has(document: Any, keys: Sequence[str]) -> bool:
    for key in keys:
        if not isinstance(document, Mapping) or key not in document:
            return False
        document = document[key]
    return True


def _given(args: object, name: str) -> bool:
    if isinstance(args, BaseModel):
        return name in args.model_fields_set
    if not dataclasses.is_dataclass(args):
        return False
    # What equals the default is not told from what was left out.
    for field in dataclasses.fields(args):
        if field.name == name:
            factory = field.default_factory
            default = field.default if factory is dataclasses.MISSING else factory()
            value = getattr(args, name)
            return value is not default and not (isinstance(value, type(default)) and value == default)
    return False
