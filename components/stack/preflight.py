"""What is found out before the first resource is declared: what is wrong here changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pulumi

from components.cluster import mode, placement, webhooks
from components.config import disk
from components.config.checks import drivers, termination, without_effect
from components.config.checks.google import small_disk, small_ssds
from components.config.pool_room import pools
from components.config.settings import Settings
from components.config.stack import Stack
from components.google.adopted_cluster import Endpoint, require_adopted
from components.image import adapter_images, existing_image, former_image
from components.image.existing_image import Existing
from components.image.former_image import Former
from components.image.model_lock import model_doubts, model_lock
from components.kserve import cluster_provider
from components.manifests import gitops
from components.stack import (
    charts,
    kept_cluster,
    kept_endpoint,
    kept_parts,
    kept_pools,
    kernel_fit,
    last_run,
    reachability,
    renamed,
    side_by_side,
)
from modelcar.errors import InputError, Problem
from modelcar.lock import Lock


@dataclass(frozen=True)
class CheckedStack:
    """What is known of a stack before it is declared.

    stack: its settings, with a placement for each model.
    locks, former: of each model, by its key; None where there is none.
    disks: what the nodes' disks have to hold, by the pool's name.
    reachable: whether the cluster can be asked what it runs, before anything is declared.
    cluster_there: whether it can be asked once Google's side is declared: one that this stack made.
    tested: what the smoke test found out, where a placement is auto.
    doubts: what a reviewer should know, and what stops nothing.
    project: the program's folder.
    existing: images that are there already, of the models that are served by one.
    charts_unread: whether KServe's charts are out of reach, in a preview.
    endpoint: by which an adopted cluster's control plane is reached.
    was_listed: whether the last run had a list of models.
    cluster_uid: of a cluster that the stack itself names; None where nobody knows it.
    deleted: what goes with all that is in it, as the head of the preview says it.
    """

    stack: Stack
    locks: Mapping[str, Lock | None]
    former: Mapping[str, Former | None]
    disks: Mapping[str, disk.DiskNeed]
    reachable: bool = False
    tested: placement.Found | None = None
    doubts: tuple[str, ...] = ()
    project: Path = Path()
    existing: Mapping[str, Existing] = field(default_factory=dict)
    charts_unread: bool = False
    endpoint: Endpoint = "auto"
    was_listed: bool = False
    cluster_uid: str | None = None
    deleted: tuple[str, ...] = ()
    cluster_there: bool = False


def check(
    stack: Stack,
    project: Path,
    outputs: Mapping[str, Any] | None = None,
    urns: Collection[str] = (),
) -> CheckedStack:
    """Look at locks, disks, registry and cluster, and return what is known then.

    Args:
        outputs: of the last run: what has to stay, and what cannot be asked now.
        urns: of what the stack's state has.

    Raises:
        InputError: with what is wrong, of all models.
    """
    with stack.secrets.hidden():
        return _checked(stack, project, outputs, urns)


def _checked(
    stack: Stack, project: Path, outputs: Mapping[str, Any] | None, urns: Collection[str]
) -> CheckedStack:
    preview, shared = pulumi.runtime.is_dry_run(), stack.shared
    locks: dict[str, Lock | None] = {}
    former: dict[str, Former | None] = {}
    last = outputs or {}
    problems = [
        *renamed.problems(stack, last),
        *renamed.taken(stack, last),
        *kept_endpoint.problems(stack, last),
        *kept_pools.problems(stack, last),
        *kept_parts.problems(stack, urns),
    ]
    for settings in stack.models:
        try:
            locks[settings.key] = None if settings.image else model_lock(settings, project)
        except InputError as error:
            problems += error.problems
    existing, unfit = existing_image.find_all(stack, preview=preview, outputs=last)
    problems += unfit
    unfit, adapter_doubts = adapter_images.look(stack, preview=preview)
    problems += unfit
    if problems:
        raise InputError(problems)
    name = pulumi.get_stack()
    problems += [
        found for model in stack.models if (found := kernel_fit.unfit(model, locks[model.key], name))
    ]
    if problems:
        raise InputError(problems)
    known = sizes(locks, existing)
    disks = node_disks(stack, known)
    endpoint = endpoint_of(stack, last)
    doubts = node_doubts(stack, known, require_adopted(shared.google, endpoint)) if shared.google else ()
    doubts += tuple(doubt for one in existing.values() for doubt in one.doubts) + adapter_doubts
    doubts += tuple(doubt for settings in stack.models for doubt in termination.doubts(settings))
    # What all models inherit is told once.
    doubts += tuple(dict.fromkeys(doubt for one in stack.models for doubt in without_effect.doubts(one)))
    doubts += tuple(cluster_provider.doubts())
    doubts += tuple(reachability.doubts(shared, last))
    doubts += tuple(side_by_side.doubts(stack, last))
    for settings in stack.models:
        doubts += model_doubts(settings, locks[settings.key], project)
    doubts += kernel_doubts(stack, locks, name)
    builds = len(existing) < len(stack.models)
    reachable = reachability.check(shared, required=not preview, pushes=builds)
    unread = unread_charts(shared, preview=preview)
    doubts += unread
    cluster_uid, unlike = kept_cluster.uid(shared, last, reachable=reachable)
    doubts += tuple(unlike)
    mode.require(shared, reachable=reachable)
    if reachable and not preview and not shared.kserve.install and shared.kserve.verify:
        webhooks.require(shared, say=pulumi.log.info)
    for settings in stack.models:
        former[settings.key] = former_image.find(settings, preview=preview)
    gitops.check(stack, project, locks, name)
    tested = None
    if shared.delivery == "cluster" and any(model.placement == "auto" for model in stack.models):
        asked = next(model for model in stack.models if model.placement == "auto")
        tested = placement.find(
            asked,
            project,
            preview=preview,
            reachable=reachable,
            registry=registry_is_there(stack, last),
            say=pulumi.log.info,
            stack=name,
        )
        stack = replace(stack, models=tuple(_placed(model, tested) for model in stack.models))
    return CheckedStack(
        stack,
        locks,
        former,
        disks,
        reachable,
        tested,
        doubts,
        project,
        existing,
        charts_unread=bool(unread),
        endpoint=endpoint,
        was_listed=last_run.was_listed(last),
        cluster_uid=cluster_uid,
        deleted=tuple(kept_parts.told(stack, urns)),
        cluster_there=not preview and reachability.made_before(shared, last),
    )


def registry_is_there(stack: Stack, outputs: Mapping[str, Any]) -> bool:
    """Tell whether images can be pushed before anything is declared; outputs: of the last run."""
    google, shared = stack.google, stack.shared
    if google is None or shared.registry != google.registry:
        return True  # somebody else's
    there = google.repository.existing or "Repository" in shared.import_existing
    return there or outputs.get("registry") == shared.registry


def endpoint_of(stack: Stack, outputs: Mapping[str, Any]) -> Endpoint:
    """Return by which endpoint the control plane of an adopted cluster is to be reached: as in the last run.

    In a state of a version before 0.4.0 the Kubernetes provider takes another address for another cluster,
    and Pulumi would make anew all that is in it.

    Args:
        outputs: of the last run. A version that did not tell the endpoint took the address.
    """
    google, shared = stack.shared.google, stack.shared
    if google is None or shared.kubeconfig or shared.kube_context:
        return "auto"  # and nobody uses it
    if (outputs.get("clusterName"), outputs.get("clusterLocation")) != (google.cluster.name, google.location):
        return "auto"
    return "dns" if outputs.get("clusterEndpoint") == "dns" else "ip"


def unread_charts(settings: Settings, *, preview: bool) -> tuple[str, ...]:
    """Return what a reviewer should know where KServe's charts are out of reach.

    Raises:
        InputError: they are, and it is no preview.
    """
    if not settings.kserve.install or not (preview or settings.check_reachable):
        return ()
    problems = charts.unreachable(settings.kserve)
    if problems and not preview:
        raise InputError(problems)
    return tuple(
        f"{found.key}: {found.value}: this preview does not look into the chart and shows its release as "
        f"changed; pulumi up needs {found.allowed}"
        for found in problems
    )


def sizes(locks: Mapping[str, Lock | None], existing: Mapping[str, Existing]) -> dict[str, float]:
    """Return the bytes of one copy of each model on a node, by the model's key; 0 where nothing tells."""
    found: dict[str, float] = {key: lock.total_size if lock else 0 for key, lock in locks.items()}
    return found | {key: image.disk for key, image in existing.items()}


def kernel_doubts(stack: Stack, locks: Mapping[str, Lock | None], name: str) -> tuple[str, ...]:
    """Return what a reviewer should know of compiled kernels; name: of the stack."""
    found = (kernel_fit.doubt(model, locks[model.key], name) for model in stack.models)
    return tuple(line for line in found if line)


def _placed(settings: Settings, tested: placement.Found) -> Settings:
    if settings.placement != "auto":
        return settings
    return settings.model_copy(update={"placement": tested.placement})


def node_disks(stack: Stack, known: Mapping[str, float]) -> dict[str, disk.DiskNeed]:
    """Return what each pool's disks have to hold; a pool's models can be on one of its nodes together.

    Args:
        known: bytes of each model, by its key.

    Raises:
        InputError: a disk that was set by hand is too small.
    """
    if stack.google is None:
        return {}
    found: dict[str, disk.DiskNeed] = {}
    problems: list[Problem] = []
    for key, nodes in pools(stack.google):
        models = [
            disk.OnNode(known[model.key], model.gpu_count, model.server_image)
            for model in stack.on_pool(nodes.name)
        ]
        needed = found[nodes.name] = disk.need(models, nodes.gpus_per_node)
        problems += [*small_disk(key, nodes, needed), *small_ssds(key, nodes, needed)]
    if problems:
        raise InputError(problems)
    return found


def node_doubts(stack: Stack, known: Mapping[str, float], adopted: str | None) -> tuple[str, ...]:
    """Return what a reviewer should know of drivers and GPU memory.

    Args:
        known: bytes of each model, by its key.
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
            found += drivers.too_large(model, nodes, known[model.key])
    if problems:
        raise InputError(dict.fromkeys(problems))
    return tuple(dict.fromkeys(found))
