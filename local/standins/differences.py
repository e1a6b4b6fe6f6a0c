"""Paths of properties, as Pulumi writes them."""

from __future__ import annotations

from typing import Any


def prune(live: Any, wanted: Any) -> Any:
    """Cut the live value down to what the wanted one also has."""
    if isinstance(live, dict) and isinstance(wanted, dict):
        return {key: prune(item, wanted[key]) for key, item in live.items() if key in wanted}
    if isinstance(live, list) and isinstance(wanted, list):
        return [prune(have, want) for have, want in zip(live, wanted, strict=False)]
    return live


def property_path(path: tuple[str | int, ...]) -> str:
    """Return a path as Pulumi writes it: `spec.containers[0].image`, `metadata.labels["a.b/c"]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif any(sign in part for sign in '."[]'):
            escaped = part.replace('"', '\\"')
            text += f'["{escaped}"]'
        else:
            text += f".{part}" if text else part
    return text


def matches(pattern: str, path: str) -> bool:
    """Say whether an ignoreChanges path covers a changed one (equal, or a parent of it)."""
    return path == pattern or path.startswith((pattern + ".", pattern + "["))
