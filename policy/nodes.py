"""The nodes that a stack's GKE resources make."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from policy.rule import Resource
from policy.values import UNKNOWN, at, entries, is_true

NODE_POOL = "gcp:container/nodePool:NodePool"
CLUSTER = "gcp:container/cluster:Cluster"
#: Machine types that always have NVIDIA GPUs (https://cloud.google.com/compute/docs/gpus); to N1 they are
#: added as accelerators.
_GPU_MACHINES = re.compile(r"(a2|a3|a4|a4x|g2|g4)-.+")


@dataclass(frozen=True)
class Nodes:
    """A node configuration and where it is; `config` is None where nothing is said, or UNKNOWN.

    disk: its property with the boot disk's size in GB.
    provisioned: GKE makes the pools of these nodes when pods want them: with GPUs of the kinds that
        `accelerators` names, and with the taint for them, as nobody can say it here.
    """

    path: str
    config: Any
    disk: str = "diskSizeGb"
    provisioned: bool = False
    accelerators: tuple[str, ...] = ()

    def at(self, *keys: str) -> Any:
        """Return one of its properties."""
        return at(self.config, *keys)

    @property
    def have_gpus(self) -> bool:
        """Tell whether they have GPUs, as far as it is known."""
        if self.provisioned:
            return bool(self.accelerators)
        machine = self.at("machineType")
        if isinstance(machine, str) and _GPU_MACHINES.fullmatch(machine):
            return True
        # An accelerator whose number is not known yet counts.
        return any(at(entry, "count") != 0 for _, entry in entries(self.at("guestAccelerators")))


def nodes(resource: Resource) -> Iterator[Nodes]:
    """Yield the node configurations of a node pool or a cluster."""
    if resource.type == NODE_POOL:
        yield Nodes("nodeConfig", resource.at("nodeConfig"))
    if resource.type != CLUSTER:
        return
    autopilot = is_true(resource.at("enableAutopilot"))
    if autopilot or is_true(resource.at("clusterAutoscaling", "enabled")):
        path = ("clusterAutoscaling", "autoProvisioningDefaults")
        limits = () if autopilot else _accelerators(resource)  # Autopilot chooses the disk itself
        yield Nodes(".".join(path), resource.at(*path), "diskSize", provisioned=True, accelerators=limits)
    if autopilot:
        return
    inline = resource.at("nodePools")
    for number, pool in entries(inline):
        yield Nodes(f"nodePools[{number}].nodeConfig", at(pool, "nodeConfig"))
    own = resource.at("nodeConfig")
    removed = resource.at("removeDefaultNodePool")
    # The default pool: not there when pools are listed, gone before anything runs on it when it is removed.
    if own is not None or not (inline or is_true(removed) or removed is UNKNOWN):
        yield Nodes("nodeConfig", own)


def _accelerators(resource: Resource) -> tuple[str, ...]:
    """Return the kinds of GPUs that node auto-provisioning may add to a cluster."""
    limits = entries(resource.at("clusterAutoscaling", "resourceLimits"))
    kinds = (at(limit, "resourceType") for _, limit in limits if at(limit, "maximum") != 0)
    return tuple(kind for kind in kinds if isinstance(kind, str) and kind.startswith("nvidia-"))
