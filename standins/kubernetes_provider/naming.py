"""Names of objects that the program did not name, and the field manager that applies are made as."""

from __future__ import annotations

import hashlib
from typing import Any

from pulumi.runtime.proto import provider_pb2

from standins.kubernetes_provider.properties import UNKNOWN

AUTONAMED = "pulumi.com/autonamed"
_MODES = provider_pb2.CheckRequest.AutonamingOptions
_SUFFIX_LENGTH = 8


class NamingError(ValueError):
    """The object has to be named by the program."""


def is_named(wanted: dict[str, Any]) -> bool:
    """Say whether the program gave metadata.name, known or not."""
    metadata = wanted.get("metadata")
    if metadata is UNKNOWN:
        return True
    return isinstance(metadata, dict) and bool(metadata.get("name"))


def is_autonamed(wanted: dict[str, Any]) -> bool:
    """Say whether a provider made up the object's name."""
    annotations = (wanted.get("metadata") or {}).get("annotations") or {}
    return isinstance(annotations, dict) and annotations.get(AUTONAMED) == "true"


def assign_name(
    wanted: dict[str, Any],
    old_inputs: dict[str, Any],
    urn: str,
    random_seed: bytes,
    autonaming: provider_pb2.CheckRequest.AutonamingOptions | None,
) -> None:
    """Name the object if the program did not: as before, or the resource's name and a random suffix.

    Raises:
        NamingError: automatic naming is switched off in the project, or the server is to choose the name.
    """
    if is_named(wanted):
        return
    metadata = wanted.setdefault("metadata", {})
    if metadata.get("generateName"):
        raise NamingError("metadata.generateName does not go with server-side apply; give metadata.name")
    if old_inputs and is_autonamed(old_inputs):
        name = old_inputs["metadata"]["name"]
    elif autonaming is not None and autonaming.mode == _MODES.DISABLE:
        raise NamingError("automatic naming is switched off (pulumi:autonaming); give metadata.name")
    elif autonaming is not None and autonaming.proposed_name:
        name = autonaming.proposed_name
    else:
        suffix = hashlib.sha256(random_seed + urn.encode()).hexdigest()[:_SUFFIX_LENGTH]
        name = f"{urn.rsplit('::', 1)[-1]}-{suffix}"
    metadata["name"] = name
    if isinstance(metadata.get("annotations", {}), dict):
        metadata.setdefault("annotations", {})[AUTONAMED] = "true"


def field_manager(urn: str) -> str:
    """Return the field manager for a resource that has none in its state yet.

    The official provider draws it at random; here it follows from the URN, so that an object whose
    creation was interrupted before it reached the state is recognised as our own by the next run.
    """
    return "pulumi-kubernetes-" + hashlib.sha256(urn.encode()).hexdigest()[:_SUFFIX_LENGTH]
