"""What is found out before the first resource is declared: what is wrong here changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pulumi

from components import former_image, reachability
from components.former_image import Former
from components.google import disk, drivers
from components.google.checks import pools, small_disk, small_ssds
from components.google.cluster import require_adopted
from components.model_lock import model_lock
from components.models import Stack
from components.settings import Settings
from modelcar.errors import InputError, Problem
from modelcar.lock import Lock
from operations import gitops, mode, placement


@dataclass(frozen=True)
class Facts:
    """What is known of a stack before it is declared.

    stack: its settings, with a placement for each model.
    locks, former: of each model, by its key; None where there is none.
    disks: what the nodes' disks have to hold, by the pool's name.
    reachable: whether the cluster can be asked what it runs.
    tested: what the smoke test found out, where a placement is auto.
    doubts: what a reviewer should know, and what stops nothing.
    """

    stack: Stack
    locks: Mapping[str, Lock | None]
    former: Mapping[str, Former | None]
    disks: Mapping[str, disk.DiskNeed]
    reachable: bool = False
    tested: placement.Found | None = None
    doubts: tuple[str, ...] = ()


def check(stack: Stack, project: Path) -> Facts:
    """Look at locks, disks, registry and cluster, and return what is known then.

    Raises:
        InputError: with what is wrong, of all models.
    """
    preview, shared = pulumi.runtime.is_dry_run(), stack.shared
    locks: dict[str, Lock | None] = {}
    former: dict[str, Former | None] = {}
    problems: list[Problem] = []
    for settings in stack.models:
        try:
            locks[settings.key] = model_lock(settings, project)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    disks = node_disks(stack, locks)
    doubts = node_doubts(stack, locks, require_adopted(shared.google)) if shared.google else ()
    reachable = reachability.check(shared, required=not preview)
    mode.require(shared, reachable=reachable)
    for settings in stack.models:
        former[settings.key] = former_image.find(settings, preview=preview)
    gitops.check(stack, project, locks)
    tested = None
    if shared.delivery == "cluster" and any(model.placement == "auto" for model in stack.models):
        asked = next(model for model in stack.models if model.placement == "auto")
        tested = placement.find(asked, project, preview=preview, reachable=reachable, say=pulumi.log.info)
        stack = replace(stack, models=tuple(_placed(model, tested) for model in stack.models))
    return Facts(stack, locks, former, disks, reachable, tested, doubts)


def _placed(settings: Settings, tested: placement.Found) -> Settings:
    if settings.placement != "auto":
        return settings
    return settings.model_copy(update={"placement": tested.placement})


def node_disks(stack: Stack, locks: Mapping[str, Lock | None]) -> dict[str, disk.DiskNeed]:
    """Return what each pool's disks have to hold; a pool's models can be on one of its nodes together.

    Raises:
        InputError: a disk that was set by hand is too small.
    """
    if stack.google is None:
        return {}
    found: dict[str, disk.DiskNeed] = {}
    problems: list[Problem] = []
    for key, nodes in pools(stack.google):
        models = [
            disk.OnNode(lock.total_size if lock else 0, model.gpu_count, model.server_image)
            for model in stack.on_pool(nodes.name)
            for lock in [locks[model.key]]
        ]
        needed = found[nodes.name] = disk.need(models, nodes.gpus_per_node)
        problems += [*small_disk(key, nodes, needed), *small_ssds(key, nodes, needed)]
    if problems:
        raise InputError(problems)
    return found


def node_doubts(stack: Stack, locks: Mapping[str, Lock | None], adopted: str | None) -> tuple[str, ...]:
    """Return what a reviewer should know of drivers and GPU memory.

    Args:
        adopted: GKE version of a cluster that is there already; None where it is not known.

    Raises:
        InputError: the nodes of that version have no such GPU, or too old a driver for a model's server.
    """
    problems: list[Problem] = []
    found: list[str] = []
    for key, nodes in pools(stack.google) if stack.google else ():
        problems += drivers.too_old_for(nodes, key, adopted)
        for model in stack.on_pool(nodes.name):
            if model.google is None:
                continue
            version = adopted or drivers.made_with(model.google)
            problems += drivers.problems(model, nodes, version)
            found += drivers.doubts(model, nodes, version)
            lock = locks[model.key]
            found += drivers.too_large(model, nodes, lock.total_size) if lock else ()
    if problems:
        raise InputError(dict.fromkeys(problems))
    return tuple(dict.fromkeys(found))
