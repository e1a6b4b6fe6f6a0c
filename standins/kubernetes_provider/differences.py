"""What changed between the object as it was last seen and the inputs of the program.

As in the official provider: the last seen live object is cut down to the paths that the old inputs had
(so that what the server or a controller added is no difference), and the new inputs are compared with
that. A value that somebody else changed in the cluster shows after a refresh.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pulumi.runtime.proto import provider_pb2

from standins.kubernetes_provider.properties import UNKNOWN

Kind = provider_pb2.PropertyDiff
_MISSING = object()
_SELECTOR = ("spec", "selector")

# Fields that only a new object can change, by kind (forceNew of the official provider), beside name and
# namespace. ConfigMaps and Secrets are replaced unless the provider is told that they are mutable.
_REPLACE: dict[tuple[str, str], tuple[tuple[str, ...], ...]] = {
    ("apps", "DaemonSet"): (_SELECTOR,),
    ("apps", "Deployment"): (_SELECTOR,),
    ("apps", "StatefulSet"): (
        _SELECTOR,
        ("spec", "podManagementPolicy"),
        ("spec", "serviceName"),
        ("spec", "volumeClaimTemplates"),
    ),
    ("batch", "Job"): (
        _SELECTOR,
        ("spec", "completions"),
        ("spec", "parallelism"),
        ("spec", "template"),
    ),
    ("rbac.authorization.k8s.io", "RoleBinding"): (("roleRef",),),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): (("roleRef",),),
    ("storage.k8s.io", "StorageClass"): (("parameters",), ("provisioner",)),
    ("", "PersistentVolumeClaim"): (
        _SELECTOR,
        ("spec", "accessModes"),
        ("spec", "storageClassName"),
        ("spec", "volumeName"),
    ),
    ("", "Pod"): (("spec",),),
    ("", "Service"): (("spec", "clusterIP"),),
    ("", "Secret"): (("type",),),
}
_ALWAYS_REPLACE = (("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace"))


def group_of(api_version: str) -> str:
    """Return the API group of an apiVersion, "" for the core group."""
    group, slash, _ = api_version.partition("/")
    return group if slash else ""


def replacing_paths(
    wanted: Mapping[str, Any], *, config_maps_mutable: bool, secrets_mutable: bool
) -> tuple[tuple[str, ...], ...]:
    """Return the paths under which a change needs a new object."""
    kind, group = str(wanted.get("kind", "")), group_of(str(wanted.get("apiVersion", "")))
    paths = _ALWAYS_REPLACE + _REPLACE.get((group, kind), ())
    immutable = wanted.get("immutable") is True
    if group == "" and kind == "ConfigMap" and (immutable or not config_maps_mutable):
        paths += (("data",), ("binaryData",))
    if group == "" and kind == "Secret" and (immutable or not secrets_mutable):
        paths += (("data",), ("stringData",))
    return paths


def prune(live: Any, wanted: Any) -> Any:
    """Cut the live value down to what the wanted one also has."""
    if isinstance(live, dict) and isinstance(wanted, dict):
        return {key: prune(item, wanted[key]) for key, item in live.items() if key in wanted}
    if isinstance(live, list) and isinstance(wanted, list):
        return [prune(have, want) for have, want in zip(live, wanted, strict=False)]
    return live


def differences(old: Any, new: Any, replacing: tuple[tuple[str, ...], ...]) -> dict[str, Kind]:
    """Return the changes from old to new by property path.

    replacing: paths under which a change needs a new object (see replacing_paths).
    """
    found: dict[str, Kind] = {}
    _compare((), old, new, replacing, found)
    return found


def _compare(
    path: tuple[str | int, ...],
    old: Any,
    new: Any,
    replacing: tuple[tuple[str, ...], ...],
    found: dict[str, Kind],
) -> None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            _compare((*path, key), old.get(key, _MISSING), new.get(key, _MISSING), replacing, found)
        return
    if isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            _compare(
                (*path, index),
                old[index] if index < len(old) else _MISSING,
                new[index] if index < len(new) else _MISSING,
                replacing,
                found,
            )
        return
    if new is not UNKNOWN and _same(old, new):
        return
    # The selector matchers above compare whole subtrees: a path counts when either contains the other.
    replace = any(path[: len(head)] == head[: len(path)] for head in replacing)
    if old is _MISSING:
        kind = Kind.ADD_REPLACE if replace else Kind.ADD
    elif new is _MISSING:
        kind = Kind.DELETE_REPLACE if replace else Kind.DELETE
    else:
        kind = Kind.UPDATE_REPLACE if replace else Kind.UPDATE
    # A deletion shows the old input; otherwise the display compares the old state with the new one.
    found[property_path(path)] = Kind(kind=kind, inputDiff=new is _MISSING)


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, bool) or isinstance(new, bool):
        return old is new
    return bool(old == new)


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
