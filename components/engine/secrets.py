"""Secrets of a stack's file stay secrets in its state, in previews and in what Pulumi says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi

#: Fields of a container that hold what a stack says to its server.
_FIELDS = frozenset({"args", "command", "env"})
#: Objects that have such containers.
_KINDS = "kubernetes:serving.kserve.io/"


def used(value: pulumi.Input[Any]) -> pulumi.Output[Any]:
    """Return what may be a secret, for a wait that uses it and tells nothing of it: its result is none."""
    return pulumi.Output.unsecret(pulumi.Output.from_input(value))


def kept_in_objects() -> pulumi.ResourceOptions:
    """Return the options of a component whose objects have secrets in their containers.

    The values are the same, so that nothing is updated by it: Pulumi encrypts them.
    """
    return pulumi.ResourceOptions(transformations=[_keep])


def _keep(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
    spec = args.props.get("spec")
    if not args.type_.startswith(_KINDS) or spec is None:
        return None
    return pulumi.ResourceTransformationResult({**args.props, "spec": kept(spec)}, args.opts)


def kept(value: Any) -> Any:
    """Return an object's spec, in which the fields of containers that may hold secrets are secret."""
    if isinstance(value, pulumi.Output):
        return pulumi.Output.secret(value)
    if isinstance(value, Mapping):
        return {
            key: pulumi.Output.secret(below) if key in _FIELDS else kept(below)
            for key, below in value.items()
        }
    if isinstance(value, list | tuple):
        return [kept(entry) for entry in value]
    return value
