"""What an update changes of an object that somebody else made or edited, where Pulumi does not show it.

The provider (pulumi-kubernetes 4.25) imports a custom resource without its spec, so that the preview after an
import shows all of the spec as added. And its updates take over the fields that kubectl set, so that those
which are not declared are dropped; no preview shows that (docs/decisions/0009-fields-that-others-set.md). The
state has the live object beside what was declared, and with it who set which field.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pulumi

from components.engine.hooks import resource_hook

#: What of an object is compared; it is all that this program says of one.
_PARTS = (("spec",), ("metadata", "labels"), ("metadata", "annotations"))
#: kubectl's own note of what was applied.
_NOTE = "kubectl.kubernetes.io/last-applied-configuration"

Json = Mapping[str, Any]


def telling(name: str) -> pulumi.ResourceHookBinding:
    """Return the hooks that tell it, in a preview and in an update; name: of the resource, or of several."""

    async def tell(args: pulumi.ResourceHookArgs) -> None:
        found = (args.old_inputs or {}, args.old_outputs or {}, args.new_inputs or {})
        values = not any(isinstance(value, pulumi.Output) for one in found for value in one.values())
        before, live, declared = [await _opened(one) for one in found]
        what = f"{declared.get('kind')} {args.name}"
        if lines := _told(changes(before, live, declared), values=values):
            pulumi.log.info("\n".join([f"{what} was imported; of it changes:", *lines]))
        if lines := _told(dropped(live, declared), values=values):
            reason = "kubectl set what this program does not declare; the update drops it:"
            pulumi.log.info("\n".join([f"{what}: {reason}", *lines]))

    options = pulumi.ResourceHookOptions(on_dry_run=True)
    return pulumi.ResourceHookBinding(before_update=[resource_hook(f"taken-over-{name}", tell, options)])


async def _opened(found: Json) -> dict[str, Any]:
    """Return an object without what marks its secrets; Pulumi marks all of a field that has one in it."""
    return {
        key: await value.future() if isinstance(value, pulumi.Output) else value
        for key, value in found.items()
    }


def _told(lines: Iterable[str], *, values: bool) -> list[str]:
    """Return the lines, without values where one of them may be a secret."""
    return [line if values else line.partition(": ")[0] for line in lines]


def changes(before: Json, live: Json, declared: Json) -> list[str]:
    """Return a line for each declared field that changes; nothing where Pulumi's own difference shows it.

    Args:
        before: what the stack said of the object. live: the object. declared: what it says now.
    """
    if "spec" in before or "spec" not in live:
        return []
    lines: list[str] = []
    for path in _PARTS:
        lines += _between(_at(live, path), _at(declared, path), ".".join(path))
    return lines


def dropped(live: Json, declared: Json) -> Iterator[str]:
    """Yield a line for each field that kubectl set and that is not declared."""
    for entry in _at(live, ("metadata",)).get("managedFields") or ():
        if str(entry.get("manager", "")).startswith("kubectl"):
            for path in _PARTS:
                fields = _at(entry.get("fieldsV1") or {}, tuple(f"f:{key}" for key in path))
                yield from _undeclared(fields, _at(live, path), _at(declared, path), ".".join(path))


def _at(value: Json, path: tuple[str, ...]) -> Json:
    for key in path:
        value = value.get(key) or {}
    return value


def _between(old: Any, new: Any, path: str) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in new:
            yield from _between(old.get(key), new[key], f"{path}.{key}")
    elif _named(old) and _named(new):
        was = {entry["name"]: entry for entry in old}
        for entry in new:
            yield from _between(was.get(entry["name"]), entry, f"{path}[{entry['name']}]")
    elif old is None:
        yield f"  + {path}: {_shown(new)}"
    elif old != new:
        yield f"  ~ {path}: {_shown(old)} => {_shown(new)}"


def _undeclared(fields: Json, live: Any, declared: Any, path: str) -> Iterator[str]:
    """Walk what a manager has set, in the API server's form: `f:NAME`, or `k:{…}` for a list's entry."""
    for key, below in fields.items():
        sort, _, name = key.partition(":")
        if sort == "f" and name != _NOTE:
            place, was, now = f"{path}.{name}", _field(live, name), _field(declared, name)
        elif sort == "k":
            which = json.loads(name)
            place = f"{path}[{', '.join(map(str, which.values()))}]"
            was, now = _entry(live, which), _entry(declared, which)
        else:
            continue
        if now is None and was is not None:
            yield f"  - {place}: {_shown(was)}"
        else:
            yield from _undeclared(below, was, now, place)


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None


def _entry(value: Any, which: Json) -> Any:
    entries = value if isinstance(value, list) else []
    return next((entry for entry in entries if all(_field(entry, k) == v for k, v in which.items())), None)


def _named(value: Any) -> bool:
    """Tell whether a list's entries have names, as containers, variables and volumes have."""
    return isinstance(value, list) and all(isinstance(entry, Mapping) and "name" in entry for entry in value)


def _shown(value: Any) -> str:
    return json.dumps(value, default=str, sort_keys=True)
