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
    """A node configuration and where it is; `config` is None where nothing is said, or UNKNOWN."""

    path: str
    config: Any

    def at(self, *keys: str) -> Any:
        """Return one of its properties."""
        return at(self.config, *keys)

    @property
    def have_gpus(self) -> bool:
        """Tell whether they have GPUs, as far as it is known."""
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
    if is_true(resource.at("enableAutopilot")):
        path = ("clusterAutoscaling", "autoProvisioningDefaults")
        yield Nodes(".".join(path), resource.at(*path))
        return
    inline = resource.at("nodePools")
    for number, pool in entries(inline):
        yield Nodes(f"nodePools[{number}].nodeConfig", at(pool, "nodeConfig"))
    own = resource.at("nodeConfig")
    removed = resource.at("removeDefaultNodePool")
    # The default pool: not there when pools are listed, gone before anything runs on it when it is removed.
    if own is not None or not (inline or is_true(removed) or removed is UNKNOWN):
        yield Nodes("nodeConfig", own)
