"""The stack's outputs: an interface that other teams build on (docs/outputs.md, docs/outputs.schema.json)."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import pulumi

from components.config.stack import Stack
from components.google import replaced
from components.google.cloud import GoogleCloud
from components.stack.outcomes import end_with
from components.stack.output_schema import OF_ONLY_MODEL, VERSION
from components.stack.removed import removed


async def export(
    stack: Stack,
    cloud: GoogleCloud | None,
    served: Mapping[str, Any],
    failed: Mapping[str, Exception],
    outputs: Mapping[str, Any],
    cluster_uid: str | None = None,
) -> None:
    """Export the outputs, and end with an error where a model is not served.

    Args:
        stack: its settings.
        cloud: what is Google's.
        served: what is told of each model that is there, by its key.
        failed: why the others are not.
        outputs: of the last run.
        cluster_uid: of a cluster that the stack itself names.

    Raises:
        pulumi.RunError: naming the models that failed.
    """
    pulumi.export("schemaVersion", VERSION)
    former = outputs.get("models") or {}
    told = {
        settings.key: found
        for settings in stack.models
        # One that never was served is not among them.
        if (found := served.get(settings.key) or settings.of_last_run(former))
    }
    pulumi.export("models", told)
    pulumi.export("registry", stack.shared.registry)
    if gone := removed(stack, outputs, datetime.date.today()):
        pulumi.export("removedModels", gone)
    if not stack.listed and (only := told.get(stack.shared.key)) is not None:
        for name in OF_ONLY_MODEL:
            pulumi.export(name, only[name])
    if cluster_uid:
        pulumi.export("clusterUid", cluster_uid)
    if cloud:
        for name, output in _of_google(stack, cloud).items():
            if await _is_there(output):
                pulumi.export(name, output)
            elif name in outputs:
                pulumi.export(name, outputs[name])
    if failed:
        end_with(stack.secrets.hide(_told(stack, failed)))


def _of_google(stack: Stack, cloud: GoogleCloud) -> dict[str, Any]:
    return {
        "clusterName": cloud.cluster.name,
        "clusterLocation": cloud.cluster.location,
        "clusterEndpoint": cloud.cluster.endpoint,
        "nodePools": {name: {"diskGb": pool.disk_gb} for name, pool in cloud.pools.items()},
        "nodeServiceAccount": cloud.node_account,
        **({"googleMadeWith": replaced.output(stack.google, cloud.pools)} if stack.google else {}),
    }


async def _is_there(output: Any) -> bool:
    """Tell whether others may be told of it: in an update, what failed is unknown, or raises."""
    if pulumi.runtime.is_dry_run():
        return True
    try:
        return await pulumi.Output.from_input(output).is_known()
    except Exception:
        return False


def _told(stack: Stack, failed: Mapping[str, Exception]) -> str:
    others = [settings.key for settings in stack.models if settings.key not in failed]
    lines = [f"{name}: {error}" for name, error in failed.items()]
    if others:
        lines.append(f"not touched by this, and as declared: {', '.join(others)}")
    count = f"{len(failed)} of {len(stack.models)} models failed"
    return "\n  ".join([count, *lines])
