"""Inputs against the types of the pulumi_gcp package: names, nesting, kinds of values, what is required."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from local.standins.differences import property_path
from local.standins.gcp_provider.findings import Finding, Path, did_you_mean
from local.standins.gcp_provider.sdk_types import Field, ListOf, MapOf, ObjectOf, Scalar, Type, fields
from local.standins.properties import UNKNOWN, Secret

# Keys of the bridge's own bookkeeping (`__defaults`) travel among the inputs.
_INTERNAL = "__"
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


def check_object(
    value: Mapping[str, Any], known: Mapping[str, Field], path: Path = (), *, complete: bool = True
) -> Iterator[Finding]:
    """Yield what is wrong with a block; complete: also when something required is missing."""
    for key, item in value.items():
        if key.startswith(_INTERNAL):
            continue
        if key not in known:
            hint = did_you_mean(key, known)
            where = property_path(path) or "this resource"
            allowed = f"the properties that {where} has: {', '.join(sorted(known))}"
            if hint:
                allowed = f"one of the {len(known)} properties that {where} has"
            yield Finding((*path, key), allowed, f"{hint}Rename or remove the property")
        else:
            yield from _check(item, known[key].type, (*path, key))
    for key, field in known.items():
        if complete and field.required and value.get(key) is None:
            yield Finding((*path, key), f"{_name(field.type)}, required", f"give {key}")


def _check(value: Any, wanted: Type, path: Path) -> Iterator[Finding]:
    if isinstance(value, Secret):
        value = value.value
    if value is None or value is UNKNOWN:
        return
    if isinstance(wanted, Scalar):
        # bool is an int to Python, not to Google.
        right = isinstance(value, _TYPES.get(wanted.name, (object,)))
        if isinstance(value, bool) and wanted.name in ("integer", "number"):
            right = False
        if not right:
            yield Finding(path, _name(wanted), f"give {_name(wanted)}, not {_kind_of(value)}")
    elif isinstance(wanted, ListOf):
        if not isinstance(value, list):
            yield Finding(
                path, _name(wanted), f"put it into a list, or give a list instead of {_kind_of(value)}"
            )
            return
        for index, item in enumerate(value):
            yield from _check(item, wanted.item, (*path, index))
    elif not isinstance(value, dict):
        yield Finding(path, _name(wanted), f"give {_name(wanted)}, not {_kind_of(value)}")
    elif isinstance(wanted, MapOf):
        for key, item in value.items():
            yield from _check(item, wanted.item, (*path, key))
    else:
        yield from check_object(value, fields(wanted.module, wanted.name), path)


def _name(wanted: Type) -> str:
    if isinstance(wanted, Scalar):
        names = {"integer": "a whole number", "boolean": "true or false", "any": "any value"}
        return names.get(wanted.name, f"a {wanted.name}")
    if isinstance(wanted, ListOf):
        return f"a list whose items are each {_name(wanted.item)}"
    if isinstance(wanted, MapOf):
        return f"a map whose values are each {_name(wanted.item)}"
    assert isinstance(wanted, ObjectOf)  # noqa: S101 (the only one left; for mypy)
    return f"a block with {', '.join(fields(wanted.module, wanted.name))}"


def _kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list) else "a block"
