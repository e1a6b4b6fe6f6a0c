"""Google's rules for GKE node pools and node configs that the API description does not hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from local.standins.gcp_provider.accelerators import (
    check_accelerators,
    check_gpu_capacity,
    check_gpu_disk,
    check_live_migration,
    check_local_ssds,
)
from local.standins.gcp_provider.findings import (
    Finding,
    Path,
    at,
    given,
    items_at,
    number_at,
    text_at,
    true_at,
)
from local.standins.gcp_provider.names import (
    GKE_NAME,
    LOCATION,
    NODE_LABEL_KEY,
    NODE_LABEL_VALUE,
    RESERVED,
    VERSION,
    ZONE,
    check_form,
    check_labels,
    check_node_labels,
    is_reserved,
)

# https://cloud.google.com/sdk/gcloud/reference/container/node-pools/create (--disk-type, --disk-size)
DISK_TYPES: Final = (
    "pd-standard",
    "pd-balanced",
    "pd-ssd",
    "hyperdisk-balanced",
    "hyperdisk-extreme",
    "hyperdisk-throughput",
)
DISK_SIZES: Final = (10, 65536)
# https://cloud.google.com/kubernetes-engine/docs/concepts/node-images
IMAGE_TYPES: Final = (
    "COS_CONTAINERD",
    "UBUNTU_CONTAINERD",
    "WINDOWS_LTSC_CONTAINERD",
    "WINDOWS_SAC_CONTAINERD",
)
# https://cloud.google.com/compute/docs/machine-resource: n2-standard-8, e2-medium, n2-custom-4-8192.
_MACHINE = re.compile(r"[a-z]\d+[a-z]?-[a-z]+(-[a-z0-9]+)*|custom-\d+-\d+|f1-micro|ct\d\w*-\w+-\w+")
# https://cloud.google.com/kubernetes-engine/docs/how-to/flexible-pod-cidr
_PODS: Final = (8, 256)


def check_node_pool(inputs: dict[str, Any]) -> Iterator[Finding]:
    """Yield what GKE would refuse of a node pool."""
    yield from check_form(inputs, ("name",), GKE_NAME)
    yield from check_form(inputs, ("location",), LOCATION)
    yield from check_form(inputs, ("version",), VERSION)
    if given(inputs, "name") and given(inputs, "namePrefix") and "__defaults" not in inputs:
        yield Finding(("namePrefix",), "either name or namePrefix", "remove one of the two")
    pods = number_at(inputs, "maxPodsPerNode")
    if pods is not None and not _PODS[0] <= pods <= _PODS[1]:
        yield Finding(("maxPodsPerNode",), f"{_PODS[0]} to {_PODS[1]}", "give a number in that range")
    for name in ("nodeCount", "initialNodeCount"):
        count = number_at(inputs, name)
        if count is not None and count < 0:
            yield Finding((name,), "0 or more", "give the number of nodes per zone")
    yield from check_node_locations(inputs)
    yield from _check_autoscaling(inputs)
    yield from _check_upgrades(inputs)
    yield from check_node_config(inputs, ("nodeConfig",))


def check_node_locations(inputs: Any) -> Iterator[Finding]:
    """Zones of a pool or cluster lie in its region: https://cloud.google.com/kubernetes-engine/docs/concepts/
    types-of-clusters.
    """
    location = text_at(inputs, "location")
    for path, zone in items_at(inputs, "nodeLocations"):
        if not isinstance(zone, str):
            continue
        if ZONE.pattern.fullmatch(zone) is None:
            yield Finding(path, ZONE.allowed, f"write it like {ZONE.example}")
        elif location and LOCATION.pattern.fullmatch(location):
            region = "-".join(location.split("-")[:2])
            if not zone.startswith(f"{region}-"):
                yield Finding(path, f"a zone of {region}", f"give a zone such as {region}-a")


def _check_autoscaling(inputs: Any) -> Iterator[Finding]:
    """Limits are per zone or total: https://cloud.google.com/kubernetes-engine/docs/concepts/cluster-autoscaler."""
    block = ("autoscaling",)
    if not given(inputs, *block):
        return
    per_zone = [name for name in ("minNodeCount", "maxNodeCount") if given(inputs, *block, name)]
    total = [name for name in ("totalMinNodeCount", "totalMaxNodeCount") if given(inputs, *block, name)]
    if per_zone and total:
        allowed = "limits per zone (minNodeCount, maxNodeCount) or in total (totalMin…, totalMax…), not both"
        yield Finding((*block, total[0]), allowed, f"remove {' and '.join(per_zone)}, or the totals")
    for low_name, high_name in (
        ("minNodeCount", "maxNodeCount"),
        ("totalMinNodeCount", "totalMaxNodeCount"),
    ):
        low, high = number_at(inputs, *block, low_name), number_at(inputs, *block, high_name)
        if given(inputs, *block, low_name) and not given(inputs, *block, high_name):
            yield Finding((*block, high_name), "1 or more", f"give {high_name} too")
        if low is not None and low < 0:
            yield Finding((*block, low_name), "0 or more", "give a number that is not negative")
        if high is not None and high < 1:
            yield Finding((*block, high_name), "1 or more", "give the most nodes that may run")
        elif low is not None and high is not None and low > high:
            yield Finding(
                (*block, low_name), f"at most {high_name}, which is {high}", "lower it, or raise the other"
            )


def _check_upgrades(inputs: Any) -> Iterator[Finding]:
    """https://cloud.google.com/kubernetes-engine/docs/concepts/node-pool-upgrade-strategies."""
    block = ("upgradeSettings",)
    if not given(inputs, *block):
        return
    strategy = at(inputs, *block, "strategy") or "SURGE"
    surge, unavailable = number_at(inputs, *block, "maxSurge"), number_at(inputs, *block, "maxUnavailable")
    if strategy == "SURGE":
        for name, count in (("maxSurge", surge), ("maxUnavailable", unavailable)):
            if count is not None and count < 0:
                yield Finding((*block, name), "0 or more", "give a number that is not negative")
        if surge == 0 and (unavailable or 0) == 0:
            allowed = "maxSurge + maxUnavailable of 1 or more"
            yield Finding((*block, "maxSurge"), allowed, "raise one, or no node can ever be upgraded")
        if (surge or 0) + (unavailable or 0) > 20:
            yield Finding(
                (*block, "maxSurge"), "maxSurge + maxUnavailable of at most 20", "lower one of them"
            )
        if given(inputs, *block, "blueGreenSettings"):
            allowed = "blueGreenSettings with strategy BLUE_GREEN only"
            yield Finding((*block, "blueGreenSettings"), allowed, "set strategy to BLUE_GREEN or remove them")
    elif strategy == "BLUE_GREEN":
        for name in ("maxSurge", "maxUnavailable"):
            if given(inputs, *block, name):
                yield Finding((*block, name), f"{name} with strategy SURGE only", "remove it, or set SURGE")
        rollout = (*block, "blueGreenSettings", "standardRolloutPolicy")
        if given(inputs, *rollout, "batchPercentage") and given(inputs, *rollout, "batchNodeCount"):
            allowed = "either batchPercentage or batchNodeCount"
            yield Finding((*rollout, "batchPercentage"), allowed, "remove one of the two")


def check_node_config(inputs: Any, block: Path) -> Iterator[Finding]:
    """Yield what GKE would refuse of a node config at a path."""
    if not given(inputs, *block):
        return
    machine = text_at(inputs, *block, "machineType")
    if machine is not None and _MACHINE.fullmatch(machine) is None:
        allowed = "a machine type such as n2-standard-8, g2-standard-12 or e2-medium"
        yield Finding((*block, "machineType"), allowed, "see: gcloud compute machine-types list")
    for where in ((*block, "diskSizeGb"), (*block, "bootDisk", "sizeGb")):
        size = number_at(inputs, *where)
        if size is not None and not DISK_SIZES[0] <= size <= DISK_SIZES[1]:
            yield Finding(where, f"{DISK_SIZES[0]} to {DISK_SIZES[1]} GB", "give a size in that range")
    for where in ((*block, "diskType"), (*block, "bootDisk", "diskType")):
        disk = text_at(inputs, *where)
        if disk is not None and disk not in DISK_TYPES:
            yield Finding(where, ", ".join(DISK_TYPES), "choose one of these")
    image = text_at(inputs, *block, "imageType")
    if image is not None and image.upper() not in IMAGE_TYPES:
        yield Finding((*block, "imageType"), ", ".join(IMAGE_TYPES), "choose one of these")
    yield from check_labels(inputs, *block, "resourceLabels")
    yield from check_node_labels(inputs, *block, "labels")
    yield from _check_taints(inputs, block)
    yield from check_accelerators(inputs, block)
    yield from check_gpu_disk(inputs, block)
    yield from check_gpu_capacity(inputs, block)
    yield from check_local_ssds(inputs, block)
    yield from check_live_migration(inputs, block)
    yield from _check_provisioning(inputs, block)
    yield from _check_streaming(inputs, block, image)


def _check_taints(inputs: Any, block: Path) -> Iterator[Finding]:
    """https://cloud.google.com/kubernetes-engine/docs/how-to/node-taints."""
    for path, _ in items_at(inputs, *block, "taints"):
        if text_at(inputs, *path, "effect") == "EFFECT_UNSPECIFIED":
            allowed = "NO_SCHEDULE, PREFER_NO_SCHEDULE, NO_EXECUTE"
            yield Finding((*path, "effect"), allowed, "say which effect the taint has")
        yield from check_form(inputs, (*path, "key"), NODE_LABEL_KEY)
        yield from check_form(inputs, (*path, "value"), NODE_LABEL_VALUE)
        if is_reserved(text_at(inputs, *path, "key") or ""):
            yield Finding((*path, "key"), RESERVED, "use a domain of your own")


def _check_provisioning(inputs: Any, block: Path) -> Iterator[Finding]:
    """How the machines are bought.

    https://cloud.google.com/kubernetes-engine/docs/concepts/spot-vms, …/how-to/flex-start,
    …/how-to/consuming-reservations.
    """
    chosen = [name for name in ("spot", "preemptible", "flexStart") if true_at(inputs, *block, name)]
    for name in chosen[1:]:
        yield Finding(
            (*block, name), f"one of spot, preemptible and flexStart; {chosen[0]} is on", f"remove {name}"
        )
    if given(inputs, *block, "maxRunDuration") and "flexStart" not in chosen and chosen:
        allowed = "maxRunDuration with flexStart only"
        yield Finding((*block, "maxRunDuration"), allowed, "remove it or use flexStart")
    affinity = (*block, "reservationAffinity")
    kind = text_at(inputs, *affinity, "consumeReservationType")
    if kind == "SPECIFIC_RESERVATION":
        for name in ("key", "values"):
            if not given(inputs, *affinity, name):
                allowed = "key compute.googleapis.com/reservation-name and values with the reservation's name"
                yield Finding((*affinity, name), allowed, f"give {name}")
    elif kind is not None:
        for name in ("key", "values"):
            if given(inputs, *affinity, name):
                yield Finding((*affinity, name), f"{name} with SPECIFIC_RESERVATION only", "remove it")
    if chosen and kind not in (None, "NO_RESERVATION", "UNSPECIFIED"):
        yield Finding(
            (*affinity, "consumeReservationType"),
            f"NO_RESERVATION together with {chosen[0]}, which uses no reservations",
            f"set NO_RESERVATION or remove {chosen[0]}",
        )


def _check_streaming(inputs: Any, block: Path, image: str | None) -> Iterator[Finding]:
    """https://cloud.google.com/kubernetes-engine/docs/how-to/image-streaming: COS nodes only; and
    …/how-to/data-container-image-preloading: secondary boot disks need image streaming.
    """
    where = (*block, "gcfsConfig", "enabled")
    if true_at(inputs, *where) and image is not None and not image.upper().startswith("COS"):
        yield Finding(where, "image streaming with imageType COS_CONTAINERD only", "change the imageType")
    if given(inputs, *block, "secondaryBootDisks") and at(inputs, *where) is False:
        yield Finding(where, "true where secondaryBootDisks are given", "set gcfsConfig.enabled to true")
