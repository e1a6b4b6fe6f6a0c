"""What a reviewer reads first: models, digests before and after, bytes to push, disks, and what it costs."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pulumi

from components.config import gpus
from components.config.google import NodeSettings
from components.config.settings import Settings
from components.engine.this_stack import this_stack
from components.engine.threads import in_thread
from components.google import replaced
from components.stack import last_run, other_stack
from components.stack.preflight import CheckedStack
from components.stack.removed import removed
from modelcar.base import read_base
from modelcar.errors import InputError
from modelcar.image import modelcar_image
from modelcar.lock import Lock
from modelcar.manifest import Image
from modelcar.progress import amount

#: Of the table: model, digest, bytes to push, pods.
Row = tuple[str, str, str, str]

#: Digits of a digest that people compare.
SHOWN = 12
#: Lines of a table; a stack with more models has them in its steps.
MOST_MODELS = 40

#: USD an hour, about, of one GPU with its share of a machine, on demand. Prices change, classes hardly do:
#: https://cloud.google.com/compute/gpus-pricing
CLASSES = {
    gpus.T4: 1,
    gpus.L4: 1,
    gpus.A100_40: 4,
    gpus.A100_80: 5,
    gpus.H100: 10,
    gpus.H100_MEGA: 10,
    gpus.H200: 11,
    gpus.B200: 16,
    gpus.GB200: 16,
    gpus.RTX_PRO_6000: 5,
}


async def tell(checked: CheckedStack, outputs: Mapping[str, Any]) -> None:
    """Log what is going to change, before it does; outputs: of the last run."""
    former = last_run.models(outputs)
    models = checked.stack.models
    told = await asyncio.gather(*(_row(checked, model, _before(model, former)) for model in models))
    rows = [row for row, _ in told]
    sources = [line for _, lines in told for line in lines]
    gone = [name for name in former if name not in _names(checked)]
    left = sorted(
        image
        for image, row in removed(checked.stack, outputs, datetime.date.today()).items()
        if image not in (outputs.get("removedModels") or {}) and row["model"] not in gone
    )
    for doubt in checked.doubts:
        pulumi.log.warn(checked.stack.secrets.hide(doubt))
    stops = [*made_anew(checked, outputs), *checked.deleted]
    pulumi.log.info("\n".join([*stops, *table(rows), *sources, *_gone(gone, left), *pools(checked)]))


def _before(settings: Settings, former: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = settings.of_last_run(former) or {}
    return found


async def former_outputs() -> dict[str, Any]:
    """Return what the last run told; empty before the first one.

    Raises:
        pulumi.RunError: they cannot be read.
    """
    try:
        return dict(await other_stack.own_outputs())
    except pulumi.RunError as error:
        # Without them this run would tell that no model was removed, and rename services unasked.
        raise _unread(error) from None


async def former_resources() -> Collection[str]:
    """Return the URNs of what the stack has; empty before the first run.

    Raises:
        pulumi.RunError: they cannot be read.
    """
    try:
        return await other_stack.own_resources()
    except pulumi.RunError as error:
        # Without them this run might delete what the stack made for others too.
        raise _unread(error) from None


def _unread(error: pulumi.RunError) -> pulumi.RunError:
    name = this_stack()
    return pulumi.RunError(
        f"{name}: the outputs of the last run cannot be read, and nothing was changed: {error}\n"
        f"  fix: `pulumi stack output --stack {name}` says if the backend answers; then run this again"
    )


def _names(checked: CheckedStack) -> set[str]:
    return {name for settings in checked.stack.models for name in (settings.key, *settings.former_names)}


async def _row(checked: CheckedStack, settings: Settings, former: Mapping[str, Any]) -> tuple[Row, list[str]]:
    """Return a model's line of the table, and where what is to be pushed would come from."""
    lock, back = checked.locks[settings.key], checked.former[settings.key]
    there = checked.existing.get(settings.key)
    before = str(former.get("modelDigest", ""))
    planned = modelcar_image(lock, read_base(settings.architecture)) if lock else None
    after = back.digest if back else there.digest if there else planned.digest if planned else ""
    if before and before == after:
        change = f"{_short(after)}, as before"
    else:
        change = f"{_short(before) or 'new'} → {_short(after) or 'not known without a lock'}"
    push, sources = "nothing", list[str]()
    if not after or not (back or there or before == after):
        push, sources = await _to_push(settings, lock, planned, checked.project)
    serves = (
        "idle"
        if settings.idle
        else f"{settings.min_replicas}"
        + (f" to {settings.max_replicas}" if settings.max_replicas != settings.min_replicas else "")
    )
    return (settings.key, change, push, serves), sources


async def _to_push(
    settings: Settings, lock: Lock | None, planned: Image | None, project: Path
) -> tuple[str, list[str]]:
    if lock is None or planned is None:
        return "?", []
    import httpx  # a preview without changes needs no client of registries

    from modelcar.push import layers_there  # as above
    from modelcar.registry import Target  # as above

    target = Target(settings.registry, settings.repository, settings.registry_insecure)
    try:
        there = await in_thread(layers_there, planned, target, timeout=3.0)
    except (httpx.HTTPError, InputError, OSError, ValueError):
        # The registry is not reached from here.
        return f"at most {amount(lock.layers_size)}", await _sources(settings, lock, planned, (), project)
    size = sum(layer.size for layer in planned.layers if layer.digest not in there)
    return amount(size), await _sources(settings, lock, planned, there, project)


async def _sources(
    settings: Settings, lock: Lock, image: Image, there: Collection[str], project: Path
) -> list[str]:
    if not settings.mirrors:
        return []
    from components.image.layer_sources import planned  # as above

    return await in_thread(planned, settings, lock, image, there, project)


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:SHOWN]


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the models, a line each."""
    head = ("model", "digest", "to push", "pods")
    shown = [head, *rows[:MOST_MODELS]]
    widths = [max(len(row[column]) for row in shown) for column in range(len(head))]
    for row in shown:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
    if len(rows) > MOST_MODELS:
        yield f"… and {len(rows) - MOST_MODELS} more"


def _gone(names: list[str], left: list[str]) -> Iterator[str]:
    """Yield what is served no more; left: repositories of models that stay, and have another one now."""
    if names:
        yield f"no longer served: {', '.join(names)}; their images stay in the registry"
    if left:
        yield f"no longer served from: {', '.join(left)}; the images stay there"


def made_anew(checked: CheckedStack, outputs: Mapping[str, Any]) -> Iterator[str]:
    """Yield what Google cannot change in place, so that models stop; outputs: of the last run."""
    google = checked.stack.google
    former, had_pools = outputs.get("googleMadeWith"), bool(outputs.get("nodePools"))
    if google is None:
        yield from replaced.told(former, {}, {}, had_pools, gone=True)
        return
    disks = {nodes.name: _disk(checked, nodes) for nodes in google.all_pools}
    models = {
        "nodes" if nodes is google.nodes else f"pools.{nodes.name}": [
            model.key for model in checked.stack.on_pool(nodes.name) if not model.idle
        ]
        for nodes in google.all_pools
    }
    yield from replaced.told(former, replaced.made_with(google, disks), models, had_pools)


def _disk(checked: CheckedStack, nodes: NodeSettings) -> int:
    return nodes.disk_gb or checked.disks[nodes.name].disk


def pools(checked: CheckedStack) -> Iterator[str]:
    """Yield what each pool's disk has to hold, and what its nodes cost."""
    google = checked.stack.google
    for nodes in google.all_pools if google else ():
        need = checked.disks[nodes.name]
        size = _disk(checked, nodes)
        # GKE's autoscaler makes no node for the minimum: it takes none away that is part of it.
        idle = f"idle: {nodes.min_nodes} once pods made them" if nodes.min_nodes else "idle: none"
        yield (
            f"pool {nodes.name}: {nodes.min_nodes} to {nodes.max_nodes} {nodes.machine_type}, "
            f"disk {size} GB for {need.used:.0f} GB, {idle}, a node {cost_class(nodes)}"
        )


def cost_class(nodes: NodeSettings) -> str:
    """Return the class of what one node costs by the hour: $ below 3 USD, $$ 12, $$$ 40, $$$$ above."""
    hourly = CLASSES[nodes.gpu] * nodes.gpus_per_node * (0.4 if nodes.spot else 1.0)
    signs = 1 + sum(hourly >= limit for limit in (3, 12, 40))
    return "$" * signs + (" (spot)" if nodes.spot else "")
