"""What Google would refuse, or do otherwise than meant: settings of `modelcar:google` taken together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from components.config import disk, gpus
from components.config.google import GoogleSettings, NodeSettings
from components.config.pool_room import misfits, pools
from components.config.problems import problem
from components.config.settings import Settings
from modelcar.errors import Problem

_OTHER_ZONE = "choose a zone that has it, or another gpu; set checkZones to false where Google has a new one"


def problems(settings: Settings, google: GoogleSettings) -> Iterator[Problem]:
    """Yield every problem of the Google side; of a stack with several pools, none of a model with its own."""
    yield from of_google(google)
    if not google.pools:
        yield from misfits(settings, google.nodes)


def of_google(google: GoogleSettings, needs: Mapping[str, disk.DiskNeed] | None = None) -> Iterator[Problem]:
    """Yield every problem of the Google side, whatever its models are.

    Args:
        google: the settings.
        needs: what the disks of a pool's nodes have to hold, by the pool's name, where that is known.
    """
    yield from _cluster(google)
    yield from _repository(google)
    yield from _accounts(google)
    for key, nodes in pools(google):
        yield from of_pool(key, nodes, (needs or {}).get(nodes.name))
        if nodes.gpu not in gpus.NOT_OFFERED:
            yield from _zones(key, google, nodes)


def of_pool(key: str, nodes: NodeSettings, need: disk.DiskNeed | None = None) -> Iterator[Problem]:
    """Yield every problem of a pool, wherever its cluster is.

    Args:
        key: that the pool is set by.
        nodes: the pool.
        need: what its disks have to hold; by default what any node needs.
    """
    if reason := gpus.NOT_OFFERED.get(nodes.gpu):
        offered = ", ".join(gpu for gpu in gpus.GPUS if gpu not in gpus.NOT_OFFERED)
        fix = "take another GPU, or serve on nodes of your own with a stack without modelcar:google"
        yield problem(f"{key}.gpu", f"{nodes.gpu}: {reason}", offered, fix)
        return
    yield from _machine(key, nodes)
    yield from _counts(key, nodes)
    yield from _capacity(key, nodes)
    yield from _boot_disk(key, nodes)
    yield from _faster_starts(key, nodes)
    yield from small_disk(key, nodes, need or disk.need([]))
    if need:
        yield from small_ssds(key, nodes, need)


def of_zones(key: str, nodes: NodeSettings, zones: Sequence[str]) -> Iterator[Problem]:
    """Yield the problems of zones that are named for a pool, wherever its cluster is."""
    offered = gpus.ZONES.get(nodes.gpu)
    if offered is None or not nodes.check_zones:
        return
    for zone in zones:
        if zone not in offered:
            yield problem(key, f"{zone} has no {nodes.gpu}", ", ".join(sorted(offered)), _OTHER_ZONE)


def same_names(google: GoogleSettings) -> Iterator[Problem]:
    """Yield the problem of pools that are called alike."""
    for name, count in Counter(pool.name for pool in google.all_pools).items():
        if count > 1:
            allowed = "pools with names of their own"
            yield problem("google.pools", f"{name}, {count} times", allowed, "rename one")


def _cluster(google: GoogleSettings) -> Iterator[Problem]:
    cluster = google.cluster
    if cluster.stack_reference:
        if cluster.name or cluster.location or cluster.create:
            value = f"{cluster.stack_reference}, beside name, location or create"
            fix = "keep stackReference, or name the cluster here"
            yield problem("google.cluster.stackReference", value, "one way to the cluster", fix)
    elif not cluster.name:
        fix = f"pulumi config set --path modelcar:google.cluster.name {'models' if cluster.create else '…'}"
        yield problem("google.cluster.name", "not set", "the cluster's name, or a stackReference", fix)
    if google.location and gpus.region_of(google.location) != google.region:
        value = f"{google.location}, outside of modelcar:google.region {google.region}"
        allowed = f"{google.region} or a zone of it: pulling images from another region is slow and is billed"
        yield problem("google.cluster.location", value, allowed, "set region to the cluster's")
    if cluster.authorized_networks and not cluster.create:
        yield problem(
            "google.cluster.authorizedNetworks",
            ", ".join(cluster.authorized_networks),
            "a cluster that the stack creates",
            "change it where the cluster is managed",
        )


def _repository(google: GoogleSettings) -> Iterator[Problem]:
    scanning = google.repository.vulnerability_scanning
    if google.repository.existing and scanning is not None:
        value = f"{str(scanning).lower()}, and google.repository.existing says that somebody else manages it"
        fix = "remove it, and set it where the repository is managed"
        yield problem("google.repository.vulnerabilityScanning", value, "not set, beside existing", fix)


def _accounts(google: GoogleSettings) -> Iterator[Problem]:
    own = google.nodes.service_account
    for number, nodes in enumerate(google.pools):
        if nodes.service_account not in {None, own}:
            value = f"{nodes.service_account}, and the nodes of all pools run as the account of google.nodes"
            fix = "remove it, or set google.nodes.serviceAccount to it"
            key = f"google.pools[{number}].serviceAccount"
            yield problem(key, value, own or "not set", fix)


def _machine(key: str, nodes: NodeSettings) -> Iterator[Problem]:
    machine = gpus.MACHINES.get(nodes.machine_type)
    fitting = [name for name, row in gpus.MACHINES.items() if row.gpu == nodes.gpu]
    if machine is None or machine.gpu != nodes.gpu:
        has = "is not known here" if machine is None else f"has {machine.gpu}"
        value = f"{nodes.machine_type} {has}, and the pool has {nodes.gpu}"
        yield problem(f"{key}.machineType", value, ", ".join(fitting), "choose one of these, or another gpu")
        return
    if nodes.gpus_per_node not in machine.gpus:
        counts = " or ".join(map(str, machine.gpus))
        others = [name for name in fitting if nodes.gpus_per_node in gpus.MACHINES[name].gpus]
        fix = f"set it to {counts}" + (f", or take {' or '.join(others)}" if others else "")
        value = f"{nodes.gpus_per_node} on {nodes.machine_type}"
        yield problem(f"{key}.gpusPerNode", value, counts, fix)


def _zones(prefix: str, google: GoogleSettings, nodes: NodeSettings) -> Iterator[Problem]:
    location = google.location
    # What is known here of new zones is no measure of them; their region is.
    offered = gpus.ZONES.get(nodes.gpu) if nodes.check_zones else None
    if offered is None:
        # A cluster that a stack reference names may be in a zone, which is the pool's then.
        if not google.zones_of(nodes) and (nodes.check_zones or location):
            value = f"not set, and it is not known here which zones of {google.region} have {nodes.gpu}"
            fix = f"see `gcloud compute accelerator-types list --filter=name={nodes.gpu}`"
            yield problem(f"{prefix}.zones", value, f"zones of {google.region} that have it", fix)
        yield from _elsewhere(f"{prefix}.zones", google, nodes, "zones that have it")
        return
    here = sorted(zone for zone in offered if gpus.region_of(zone) == google.region)
    key = f"{prefix}.zones" if nodes.zones else "google.region"
    fix = _OTHER_ZONE
    allowed = (
        ", ".join(here)
        if here
        else "a region with it: " + ", ".join(sorted({gpus.region_of(z) for z in offered}))
    )
    if nodes.zones:
        yield from _elsewhere(key, google, nodes, allowed)
        for zone in nodes.zones:
            if gpus.region_of(zone) == google.region and zone not in offered:
                yield problem(key, f"{zone} has no {nodes.gpu}", allowed, fix)
    elif location and gpus.is_zone(location) and location not in offered:
        key = "google.cluster.location" if nodes is google.nodes else f"{prefix}.gpu"
        yield problem(key, f"{location} has no {nodes.gpu}", allowed, fix)
    elif not here:
        yield problem(key, f"{google.region} has no {nodes.gpu}", allowed, fix)


def _elsewhere(key: str, google: GoogleSettings, nodes: NodeSettings, allowed: str) -> Iterator[Problem]:
    for zone in nodes.zones:
        if gpus.region_of(zone) != google.region:
            value = f"{zone}, outside of the region {google.region}"
            yield problem(key, value, allowed, "choose zones of the cluster's region")


def _counts(key: str, nodes: NodeSettings) -> Iterator[Problem]:
    if nodes.min_nodes > nodes.max_nodes:
        value = f"{nodes.min_nodes}, above maxNodes {nodes.max_nodes}"
        yield problem(f"{key}.minNodes", value, "at most maxNodes", "lower it, or raise maxNodes")
    if (nodes.provisioning == "reservation") != bool(nodes.reservation):
        value = nodes.reservation or "not set, while provisioning is reservation"
        allowed = "the reservation's name, with provisioning reservation; and only then"
        yield problem(f"{key}.reservation", value, allowed, "set both, or neither")


def _capacity(key: str, nodes: NodeSettings) -> Iterator[Problem]:
    """https://cloud.google.com/compute/docs/accelerator-optimized-machines#consumption_option_availability_by_machine_type"""
    machine = gpus.MACHINES.get(nodes.machine_type)
    if machine and nodes.provisioning not in machine.provisioning:
        allowed = " or ".join(machine.provisioning)
        value = f"{nodes.provisioning} of {nodes.machine_type}, which Google does not sell so"
        with_name = " with the reservation's name" if machine.provisioning[0] == "reservation" else ""
        yield problem(
            f"{key}.provisioning", value, allowed, f"set it to {machine.provisioning[0]}{with_name}"
        )


def _boot_disk(key: str, nodes: NodeSettings) -> Iterator[Problem]:
    machine = gpus.MACHINES.get(nodes.machine_type)
    if machine and nodes.boot_disk_type not in machine.disks:
        value = f"{nodes.disk_type} on {nodes.machine_type}, which cannot boot from it"
        fix = f"remove it: {machine.disks[0]} is taken then"
        yield problem(f"{key}.diskType", value, " or ".join(machine.disks), fix)


def _faster_starts(key: str, nodes: NodeSettings) -> Iterator[Problem]:
    if nodes.secondary_boot_disk and not nodes.image_streaming:
        # https://cloud.google.com/kubernetes-engine/docs/how-to/data-container-image-preloading#requirements
        value = f"{nodes.secondary_boot_disk}, without imageStreaming, which reads it"
        fix = f"pulumi config set --path modelcar:{key}.imageStreaming true"
        yield problem(f"{key}.secondaryBootDisk", value, "a disk image, with imageStreaming", fix)
    machine = gpus.MACHINES.get(nodes.machine_type)
    if nodes.local_ssds and machine and nodes.local_ssds not in machine.ssds:
        counts = " or ".join(map(str, machine.ssds))
        value = f"{nodes.local_ssds} on {nodes.machine_type}"
        fix = "remove it: the machine always has them" if machine.with_ssds else f"set it to {counts}"
        yield problem(f"{key}.localSsds", value, counts, fix)


def small_ssds(key: str, nodes: NodeSettings, needed: disk.DiskNeed) -> Iterator[Problem]:
    """Yield the problem of local SSDs that are smaller than what they have to hold."""
    machine = gpus.MACHINES.get(nodes.machine_type)
    size = nodes.ssds_per_node * disk.LOCAL_SSD
    if size and size < needed.used / disk.HIGH_THRESHOLD:
        count = math.ceil(needed.used / disk.HIGH_THRESHOLD / disk.LOCAL_SSD)
        fix = f"set it to {count} on a machine that has so many, or to 0: the boot disk is large enough"
        if machine and machine.with_ssds:
            fix = f"take a machine with {count} or more, or serve fewer models on this pool"
        yield problem(
            f"{key}.localSsds",
            f"{nodes.ssds_per_node}, {size} GB: pulling the model would end in ImageGCFailed or eviction",
            f"at least {count} ({needed})",
            fix,
        )


def small_disk(key: str, nodes: NodeSettings, needed: disk.DiskNeed) -> Iterator[Problem]:
    """Yield the problem of a disk that was set by hand and is smaller than what it has to hold."""
    size = nodes.disk_gb
    if size is not None and size < needed.disk:
        reason = f"{needed}" if needed.disk > disk.SMALLEST_DISK else f"{disk.SMALLEST_DISK} GB for any model"
        yield problem(
            f"{key}.diskGb",
            f"{size}: pulling the model would end in ImageGCFailed or eviction for disk pressure",
            f"at least {needed.disk} ({reason})",
            f"set it to {needed.disk}, or remove it: it is computed then",
        )
