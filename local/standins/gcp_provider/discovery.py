"""Inputs against Google's published API descriptions: enumerations, patterns, formats, required fields.

The discovery documents (https://developers.google.com/discovery/v1/reference/apis) come inside the package
google-api-python-client and are read as files. Where that package is missing this part is left out, which
`missing_notice` says.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any

from local.standins.gcp_provider.api_mapping import FREE_FORMAT, RENAMED, ROOTS
from local.standins.gcp_provider.findings import Finding, Path, did_you_mean
from local.standins.properties import UNKNOWN, Secret

_UNSPECIFIED = "_UNSPECIFIED"
# Formats of https://developers.google.com/discovery/v1/type-format that inputs here have.
_RANGES = {"int32": (-(2**31), 2**31 - 1), "uint32": (0, 2**32 - 1), "int64": (-(2**63), 2**63 - 1)}
_FORMATS = {
    "google-duration": (re.compile(r"-?\d+(\.\d{1,9})?s"), "seconds with a final s, such as 3600s"),
    "google-datetime": (
        re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"),
        "a time as of RFC 3339, such as 2026-01-31T02:00:00Z",
    ),
}

Schema = Mapping[str, Any]


@functools.cache
def document(api: str) -> dict[str, Any] | None:
    """Return the description of an API such as `container.v1`, None where the package is not installed."""
    found = importlib.util.find_spec("googleapiclient")
    if found is None or not found.submodule_search_locations:
        return None
    folder = FilePath(found.submodule_search_locations[0]) / "discovery_cache" / "documents"
    try:
        content: dict[str, Any] = json.loads((folder / f"{api}.json").read_text(encoding="utf-8"))
    except OSError:
        return None
    return content


def missing_notice() -> str:
    """Return what to say where the API descriptions are not installed, "" where they are."""
    if importlib.util.find_spec("googleapiclient") is not None:
        return ""
    return (
        "Google's API descriptions are not installed, so enumerated values are not checked. "
        "fix: pip install google-api-python-client==2.202.0"
    )


def api_field(api: str, schema_name: str, name: str) -> tuple[str, Schema] | None:
    """Return (schema that has it, description) of the API's field for a provider property, None without one.

    Most properties are called as in the API; lists are often plural here and singular there; the rest is in
    RENAMED, which may lead through nested messages (`componentConfig.enableComponents`).
    """
    schemas = (document(api) or {}).get("schemas", {})
    renamed = RENAMED.get((schema_name, name))
    for candidate in [renamed] if renamed else [name, name.removesuffix("s")]:
        owner = schema_name
        steps = candidate.split(".")
        for step in steps[:-1]:
            owner = schemas.get(owner, {}).get("properties", {}).get(step, {}).get("$ref", "")
        field = schemas.get(owner, {}).get("properties", {}).get(steps[-1])
        if field is not None:
            return owner, field
    return None


def check_against_api(token: str, inputs: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what the API of a resource type would not take of its inputs."""
    for root in ROOTS.get(token, ()):
        yield from _check_message(inputs, root.api, root.schema, ())
        for name, required in _required(root.api, root.schema, root.method):
            if required and inputs.get(name) is None:
                yield Finding((name,), f"a value; {root.method} requires it", f"give {name}")


def _required(api: str, schema_name: str, method: str) -> Iterator[tuple[str, bool]]:
    properties = (document(api) or {}).get("schemas", {}).get(schema_name, {}).get("properties", {})
    for name, field in properties.items():
        yield name, bool(method) and method in field.get("annotations", {}).get("required", ())


def _check_message(value: Mapping[str, Any], api: str, schema_name: str, path: Path) -> Iterator[Finding]:
    for key, item in value.items():
        found = api_field(api, schema_name, key)
        if found is not None:
            owner, field = found
            yield from _check_value(item, api, field, (*path, key), free=(owner, key) in FREE_FORMAT)


def _check_value(value: Any, api: str, field: Schema, path: Path, *, free: bool) -> Iterator[Finding]:
    if isinstance(value, Secret):
        value = value.value
    if value is None or value is UNKNOWN:
        return
    if isinstance(value, list):
        # A list here may be a list, a map by id, or a single message there.
        inner = field.get("items") or field.get("additionalProperties") or field
        for index, item in enumerate(value):
            yield from _check_value(item, api, inner, (*path, index), free=free)
    elif isinstance(value, dict):
        if "$ref" in field:
            yield from _check_message(value, api, field["$ref"], path)
    elif isinstance(value, str):
        yield from _check_text(value, field, path, free=free)
    elif isinstance(value, int) and not isinstance(value, bool):
        low, high = _RANGES.get(field.get("format", ""), (value, value))
        if not low <= value <= high:
            yield Finding(path, f"a whole number from {low} to {high}", "give a number in that range")


def _check_text(value: str, field: Schema, path: Path, *, free: bool) -> Iterator[Finding]:
    enum = field.get("enum")
    if enum and value not in enum:
        usual = [name for name in enum if not name.endswith(_UNSPECIFIED)]
        hint = did_you_mean(value.upper(), usual)
        yield Finding(path, ", ".join(usual), f"{hint}Give one of the allowed values")
    pattern = field.get("pattern")
    if pattern and re.fullmatch(pattern, value) is None:
        yield Finding(path, f"text that matches {pattern}", "give a value that matches as a whole")
    form = _FORMATS.get(field.get("format", ""))
    if form and not free and form[0].fullmatch(value) is None:
        yield Finding(path, form[1], "write it in that form")
