"""The stack's outputs: an interface that other teams build on (docs/outputs.md, docs/outputs.schema.json)."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping
from typing import Any

import pulumi

from components.config.stack import Stack
from components.engine.left_out import LeftOutError
from components.google import replaced
from components.google.cloud import GoogleCloud
from components.stack import last_run
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
        failed: why others are not, or not with all that is declared for them.
        outputs: of the last run.
        cluster_uid: of a cluster that the stack itself names.

    Raises:
        pulumi.RunError: naming the models that failed.
    """
    pulumi.export("schemaVersion", VERSION)
    former, alone = last_run.models(outputs), last_run.at_top(outputs)
    told = {
        settings.key: found
        for settings in stack.models
        # One that never was served is not among them.
        if (found := served.get(settings.key) or settings.of_last_run(former))
    }
    # Versions before 0.3.0 told less than `models` has to: of one that failed that stays where it was.
    only = next((key for key, found in told.items() if key not in served and found == alone), None)
    pulumi.export("models", {key: found for key, found in told.items() if key != only})
    if not _makes_registry(stack):
        pulumi.export("registry", stack.shared.registry)
    gone = removed(stack, outputs, datetime.date.today(), failed.keys() - served.keys())
    # Of a run that fails Pulumi keeps what the last one told, and it told nothing else of it.
    if gone or "removedModels" in outputs:
        pulumi.export("removedModels", gone)
    at_top = told.get(only or ("" if stack.listed else stack.shared.key)) or {}
    for name in OF_ONLY_MODEL:
        if name in at_top:
            pulumi.export(name, at_top[name])
    if cluster_uid:
        pulumi.export("clusterUid", cluster_uid)
    if cloud:
        for name, output in _of_google(stack, cloud).items():
            if await _is_there(output):
                pulumi.export(name, output)
            elif name in outputs:
                pulumi.export(name, outputs[name])
    left_out = [name for name, error in failed.items() if isinstance(error, LeftOutError)]
    if failed.keys() - set(left_out):
        end_with(stack.secrets.hide(_told(stack, failed, left_out)))


def _makes_registry(stack: Stack) -> bool:
    return stack.google is not None and stack.shared.registry == stack.google.registry


def _of_google(stack: Stack, cloud: GoogleCloud) -> dict[str, Any]:
    registry = {"registry": _once(stack.shared.registry, cloud.registry.path)}
    disks = {name: {"diskGb": pool.disk_gb} for name, pool in cloud.pools.items()}
    return {
        **(registry if _makes_registry(stack) else {}),
        "clusterName": cloud.cluster.name,
        "clusterLocation": cloud.cluster.location,
        "clusterEndpoint": cloud.cluster.endpoint,
        "nodePools": _once(disks, *(pool.name for pool in cloud.pools.values())),
        "nodeServiceAccount": cloud.node_account,
        **({"googleMadeWith": replaced.output(stack.google, cloud.pools)} if stack.google else {}),
    }


def _once(value: Any, *there: pulumi.Output[Any]) -> Any:
    """Return a value that is true once something is there; a preview shows it."""
    return value if pulumi.runtime.is_dry_run() else pulumi.Output.all(*there).apply(lambda _: value)


async def _is_there(output: Any) -> bool:
    """Tell whether others may be told of it: in an update, what failed is unknown, or raises."""
    if pulumi.runtime.is_dry_run():
        return True
    try:
        return await pulumi.Output.from_input(output).is_known()
    except Exception:
        return False


def _told(stack: Stack, failed: Mapping[str, Exception], left_out: Collection[str]) -> str:
    others = [settings.key for settings in stack.models if settings.key not in failed]
    lines = [f"{name}: {error}" for name, error in failed.items() if name not in left_out]
    count = f"{len(lines)} of {len(stack.models)} models failed"
    if others:
        lines.append(f"not touched by this, and as declared: {', '.join(others)}")
    return "\n  ".join([count, *lines])
