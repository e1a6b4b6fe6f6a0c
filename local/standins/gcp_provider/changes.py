"""What changed between old and new inputs, and which of it needs a new resource."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from pulumi.runtime.proto import provider_pb2

from local.standins.differences import matches, property_path
from local.standins.gcp_provider.findings import Path, at
from local.standins.gcp_provider.resources import Kind
from local.standins.gcp_provider.settings import Settings
from local.standins.properties import UNKNOWN, plain

Change = provider_pb2.PropertyDiff
REPLACING: Final = (Change.ADD_REPLACE, Change.DELETE_REPLACE, Change.UPDATE_REPLACE)
# Lists whose order says nothing (sets of the official provider).
_SETS: Final = frozenset(
    {
        "cidrBlocks",
        "cleanupPolicies",
        "drainNatIps",
        "natIps",
        "nodeLocations",
        "oauthScopes",
        "sourceIpRangesToNats",
        "subnetworks",
    }
)


def changes(
    kind: Kind,
    old_inputs: Mapping[str, Any],
    old_state: Mapping[str, Any],
    new_inputs: Mapping[str, Any],
    settings: Settings,
    ignored: list[str],
) -> dict[str, Change]:
    """Return the changes by property path.

    Project and place count as they are in effect, so that another `gcp:project` replaces the resource and
    writing down what was in effect before does not. The kind says what counts as Google reports it.
    """
    old, new = plain(dict(old_inputs)), kind.resolve(plain(dict(new_inputs)), settings)
    for name in ("project", kind.place):
        if name and old_state.get(name) is not None:
            old[name] = plain(old_state[name])
    for dotted in kind.read_back:
        reported = at(old_state, *dotted.split("."))
        if reported is not None:
            old = _put(old, tuple(dotted.split(".")), plain(reported))
    found: dict[str, Change] = {}
    for key in sorted({*old, *new}):
        if not key.startswith("__"):
            _compare(kind, (key,), old.get(key), new.get(key), found)
    chosen = [path for path, by in kind.forced.items() if at(new, *by.split(".")) is False]
    return {
        path: change
        for path, change in found.items()
        if path not in chosen and not any(matches(pattern, path) for pattern in ignored)
    }


def _put(block: Any, path: Path, value: Any) -> Any:
    """Return a block with a value at a path of names in it."""
    if not path:
        return value
    inner = block or {}
    return {**inner, path[0]: _put(inner.get(path[0]), path[1:], value)}


def _compare(kind: Kind, path: Path, old: Any, new: Any, found: dict[str, Change]) -> None:
    if _is_block(old, new) or _is_block(new, old):
        # A block that is missing on one side is taken apart, so that each part says whether it replaces.
        blocks = (old or {}, new or {})
        for key in sorted({*blocks[0], *blocks[1]}):
            _compare(kind, (*path, key), blocks[0].get(key), blocks[1].get(key), found)
        return
    if isinstance(old, list) and isinstance(new, list):
        if path[-1] in _SETS:
            old, new = _sorted(old), _sorted(new)
        for index in range(max(len(old), len(new))):
            before = old[index] if index < len(old) else None
            after = new[index] if index < len(new) else None
            _compare(kind, (*path, index), before, after, found)
        return
    if new is not UNKNOWN and _same(kind, path, old, new):
        return
    replaces = _replaces(kind, path)
    if old is None:
        sort = Change.ADD_REPLACE if replaces else Change.ADD
    elif new is None:
        sort = Change.DELETE_REPLACE if replaces else Change.DELETE
    else:
        sort = Change.UPDATE_REPLACE if replaces else Change.UPDATE
    found[property_path(path)] = Change(kind=sort, inputDiff=True)


def _is_block(one: Any, other: Any) -> bool:
    return isinstance(one, dict) and (other is None or isinstance(other, dict))


def _sorted(items: list[Any]) -> list[Any]:
    return sorted(items, key=lambda item: json.dumps(item, sort_keys=True, default=str))


def _same(kind: Kind, path: Path, old: Any, new: Any) -> bool:
    if isinstance(old, bool) or isinstance(new, bool):
        return old is new
    if path[-1] in kind.parents and isinstance(old, str) and isinstance(new, str):
        # A name, a full name and a URL of one and the same resource are no difference.
        return old == new or old.endswith(f"/{new}") or new.endswith(f"/{old}")
    return bool(old == new)


def _replaces(kind: Kind, path: Path) -> bool:
    dotted = ".".join(str(part) for part in path if isinstance(part, str))

    def under(names: tuple[str, ...]) -> bool:
        return any(dotted == name or dotted.startswith(f"{name}.") for name in names)

    return under(kind.replacing) and not under(kind.in_place)
