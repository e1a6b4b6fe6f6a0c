"""A stack file's settings without its secrets (`secure:`), which only Pulumi opens.

In place of each stands a value of the shape that fits there, so that all else can be looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.config.problems import top_of
from components.config.secrets import KEPT

STAND_IN = "not-shown"
#: Marks what is left out, so that the default counts.
_LEFT_OUT = object()
_MODEL = {"name": STAND_IN, "gpuCount": 0}
#: What stands for a key whose whole value is a secret; other keys are left out.
_WHOLE: dict[str, Any] = {
    **dict.fromkeys(("kubeconfig", "name", "registryPassword", "registryUsername"), STAND_IN),
    "models": [_MODEL],
}


def without_secrets(config: Mapping[str, Any]) -> tuple[dict[str, Any], frozenset[str]]:
    """Return settings with stand-ins for their secrets, and where those are.

    A place is a key such as `kubeconfig`, `serverEnv` or `models[0].serverArgs`: of a list's elements, the
    list's own.

    Args:
        config: as the stack's file has them, without the namespace.
    """
    places: set[str] = set()
    found = {key: _plain(key, key, value, places) for key, value in config.items()}
    refused = {top_of(place) for place in places} - KEPT
    return {
        key: value for key, value in found.items() if value is not _LEFT_OUT and key not in refused
    }, frozenset(places)


def is_below(key: str, places: frozenset[str]) -> bool:
    """Tell whether a setting is one that holds a secret, or a part of one; key: without the namespace."""
    return any(key == place or key.startswith((f"{place}.", f"{place}[")) for place in places)


def _plain(key: str, place: str, value: Any, places: set[str]) -> Any:
    if _is_secret(value):
        places.add(place)
        return _WHOLE.get(key, _LEFT_OUT)
    if isinstance(value, list):
        return [_element(key, place, number, one, places) for number, one in enumerate(value)]
    if isinstance(value, dict):
        parts = {name: _plain(name, f"{place}.{name}", one, places) for name, one in value.items()}
        return {name: one for name, one in parts.items() if one is not _LEFT_OUT}
    return value


def _element(key: str, place: str, number: int, value: Any, places: set[str]) -> Any:
    if not _is_secret(value):
        return _plain(key, f"{place}[{number}]", value, places)
    places.add(place)
    if key == "serverEnv":
        return f"NOT_SHOWN_{number}={STAND_IN}"
    return {**_MODEL, "name": f"{STAND_IN}-{number}"} if key == "models" else STAND_IN


def _is_secret(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"secure"}
