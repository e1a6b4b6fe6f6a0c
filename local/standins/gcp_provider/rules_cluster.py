"""Google's rules for GKE clusters that the API description does not hold."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any, Final

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
from local.standins.gcp_provider.names import GKE_NAME, LOCATION, VERSION, check_form, check_labels
from local.standins.gcp_provider.rules_nodes import check_node_config, check_node_locations

# https://cloud.google.com/kubernetes-engine/docs/concepts/autopilot-overview: what Google manages there.
_NOT_WITH_AUTOPILOT: Final = (
    "removeDefaultNodePool",
    "nodePools",
    "nodeConfig",
    "nodeLocations",
    "defaultMaxPodsPerNode",
    "enableShieldedNodes",
    "enableIntranodeVisibility",
    "networkPolicy",
)
_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d")


def check_cluster(inputs: dict[str, Any]) -> Iterator[Finding]:
    """Yield what GKE would refuse of a cluster."""
    yield from check_form(inputs, ("name",), GKE_NAME)
    yield from check_form(inputs, ("location",), LOCATION)
    yield from check_form(inputs, ("minMasterVersion",), VERSION)
    yield from check_form(inputs, ("nodeVersion",), VERSION)
    yield from check_labels(inputs, "resourceLabels")
    yield from check_node_locations(inputs)
    yield from check_node_config(inputs, ("nodeConfig",))
    for path, _ in items_at(inputs, "nodePools"):
        yield from check_node_config(inputs, (*path, "nodeConfig"))
    yield from _check_mode(inputs)
    yield from _check_workload_identity(inputs)
    yield from _check_network(inputs)
    yield from _check_maintenance(inputs)


def _check_mode(inputs: Any) -> Iterator[Finding]:
    """An Autopilot cluster has no nodes of ours; a Standard one has to begin with some."""
    if true_at(inputs, "enableAutopilot"):
        for name in _NOT_WITH_AUTOPILOT:
            if given(inputs, name) and at(inputs, name) is not False:
                yield Finding(
                    (name,), "nothing here with enableAutopilot", f"remove {name} or enableAutopilot"
                )
        return
    if given(inputs, "enableAutopilot") and at(inputs, "enableAutopilot") is None:
        return  # not known yet
    count = number_at(inputs, "initialNodeCount")
    if not given(inputs, "initialNodeCount") and not given(inputs, "nodePools"):
        # The API's own words: "Cluster.initial_node_count must be greater than zero".
        fix = "set initialNodeCount to 1 (with removeDefaultNodePool for pools of your own)"
        yield Finding(("initialNodeCount",), "1 or more, unless enableAutopilot", fix)
    elif count is not None and count < 1:
        yield Finding(("initialNodeCount",), "1 or more", "set initialNodeCount to 1")
    if true_at(inputs, "removeDefaultNodePool") and given(inputs, "nodePools"):
        yield Finding(("nodePools",), "no nodePools with removeDefaultNodePool", "declare them as NodePool")


def _check_workload_identity(inputs: Any) -> Iterator[Finding]:
    """The pool is PROJECT.svc.id.goog: https://cloud.google.com/kubernetes-engine/docs/how-to/workload-identity."""
    where = ("workloadIdentityConfig", "workloadPool")
    pool, project = text_at(inputs, *where), text_at(inputs, "project")
    if pool is None:
        return
    if project and pool != f"{project}.svc.id.goog":
        yield Finding(where, f"{project}.svc.id.goog", "give the pool of the cluster's own project")
    elif not pool.endswith(".svc.id.goog"):
        yield Finding(where, "PROJECT.svc.id.goog", "give the pool of the cluster's own project")


def _check_network(inputs: Any) -> Iterator[Finding]:
    """https://cloud.google.com/kubernetes-engine/docs/concepts/alias-ips and …/network-isolation."""
    for kind in ("cluster", "services"):
        block, name = f"{kind}Ipv4CidrBlock", f"{kind}SecondaryRangeName"
        if given(inputs, "ipAllocationPolicy", block) and given(inputs, "ipAllocationPolicy", name):
            yield Finding(("ipAllocationPolicy", block), f"either {block} or {name}", "remove one of the two")
        yield from _check_block(inputs, ("ipAllocationPolicy", block))
    master = ("privateClusterConfig", "masterIpv4CidrBlock")
    yield from check_cidr(inputs, master)
    text = text_at(inputs, *master)
    if text is not None and is_cidr(text) and not text.endswith("/28"):
        yield Finding(master, "a range of size /28", "give a range such as 172.16.0.0/28")
    has_address = at(inputs, "controlPlaneEndpointsConfig", "ipEndpointsConfig", "enabled") is not False
    private = true_at(inputs, "privateClusterConfig", "enablePrivateEndpoint")
    if private and has_address and not given(inputs, "masterAuthorizedNetworksConfig"):
        allowed = "true only with masterAuthorizedNetworksConfig, or without ipEndpointsConfig"
        yield Finding(("privateClusterConfig", "enablePrivateEndpoint"), allowed, "give who may reach it")
    for path, _ in items_at(inputs, "masterAuthorizedNetworksConfig", "cidrBlocks"):
        yield from check_cidr(inputs, (*path, "cidrBlock"))


def _check_block(inputs: Any, path: Path) -> Iterator[Finding]:
    """A range, or only its size (`/16`), which GKE then chooses."""
    text = text_at(inputs, *path)
    if text is not None and re.fullmatch(r"/([89]|[12]\d|3[0-2])|", text) is None:
        yield from check_cidr(inputs, path)


def _check_maintenance(inputs: Any) -> Iterator[Finding]:
    """https://cloud.google.com/kubernetes-engine/docs/concepts/maintenance-windows-and-exclusions."""
    block = ("maintenancePolicy",)
    if given(inputs, *block, "dailyMaintenanceWindow") and given(inputs, *block, "recurringWindow"):
        allowed = "either dailyMaintenanceWindow or recurringWindow"
        yield Finding((*block, "recurringWindow"), allowed, "remove one of the two")
    start = (*block, "dailyMaintenanceWindow", "startTime")
    text = text_at(inputs, *start)
    if text is not None and _CLOCK.fullmatch(text) is None:
        yield Finding(start, "a time of day in UTC, HH:MM", "write it like 03:00")


def is_cidr(text: str) -> bool:
    """Say whether a text is an address range whose host part is zero."""
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return "/" in text


def check_cidr(inputs: Any, path: Path) -> Iterator[Finding]:
    """Yield a finding where the text at a path is known and no address range."""
    text = text_at(inputs, *path)
    if text is not None and not is_cidr(text):
        yield Finding(path, "an address range such as 10.0.0.0/20, host part zero", "write it in that form")
