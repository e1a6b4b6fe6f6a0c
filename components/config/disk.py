"""How large the disk of a GPU node has to be, so that pulling a model never ends in eviction.

The whole image lands on the node's boot disk, twice: containerd keeps the compressed blobs it pulled and the
unpacked layers; weights do not compress, and are pushed uncompressed, so both are as large as the model. On a
node with local SSDs it lands on those; the boot disk has the same size there, as another one would make the
nodes of deployed pools anew.
While a new version rolls out, the old one is still there. Where pods of several models fit on one node, their
images are on it together; those of models that have left it can be deleted, and are not counted.

The kubelet starts to delete images above 85 % (`imageGCHighThresholdPercent`), cannot delete those in use
(`ImageGCFailed`), and evicts pods when less than 15 % are left (`imagefs.available`): all that has to be
on the disk at once must fit below 85 % of it.
Source: https://kubernetes.io/docs/concepts/architecture/garbage-collection/ and
https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: GB. The smallest disk that the program gives to a GPU node, whatever the model.
SMALLEST_DISK = 200
#: GB; Google's limit for a persistent disk: https://cloud.google.com/compute/docs/disks
LARGEST_DISK = 65536

#: GB of one local SSD: https://cloud.google.com/compute/docs/disks/local-ssd
LOCAL_SSD = 375

#: GB. Container-Optimized OS with GKE's own images and the GPU driver.
SYSTEM = 20
#: GB. vllm/vllm-openai: about 9 GB pulled and 21 GB unpacked.
SERVER_IMAGE = 30
#: GB. Logs, caches and what pods write.
SCRATCH = 20
#: Pulled blobs and unpacked layers.
COPIES = 2
#: The version that is served and the one that comes.
VERSIONS = 2
#: Share of the disk below which the kubelet leaves images alone.
HIGH_THRESHOLD = 0.85

GB = 1000**3


@dataclass(frozen=True)
class OnNode:
    """One model, as far as a disk goes. size: bytes. gpus: of one pod. server_image: what serves it."""

    size: float
    gpus: int = 1
    server_image: str = ""


@dataclass(frozen=True)
class DiskNeed:
    """What has to fit on a node's disk; `disk` is the size that follows.

    model: GB of all models that can be on one node at once.
    servers: Images of model servers among them.
    models: How many models that are.
    """

    model: float
    servers: int = 1
    models: int = 1

    @property
    def used(self) -> float:
        """All that is on the disk at once."""
        return SYSTEM + SERVER_IMAGE * self.servers + SCRATCH + self.model * COPIES * VERSIONS

    @property
    def disk(self) -> int:
        """The smallest disk on which that stays below the threshold, rounded up to whole tens."""
        return max(SMALLEST_DISK, math.ceil(self.used / HIGH_THRESHOLD / 10) * 10)

    def __str__(self) -> str:
        servers = (
            f"{SERVER_IMAGE} server image"
            if self.servers == 1
            else (f"{self.servers} * {SERVER_IMAGE} server images")
        )
        model = "model" if self.models == 1 else f"of {self.models} models that one node can have together"
        return (
            f"({SYSTEM} system + {servers} + {SCRATCH} scratch + {COPIES} * {VERSIONS} * "
            f"{self.model:.1f} {model}) / {HIGH_THRESHOLD:.2f} = {self.used / HIGH_THRESHOLD:.0f} GB"
        )


def need(models: Sequence[OnNode], gpus_per_node: int = 1) -> DiskNeed:
    """Return what a node needs that any of these models may land on.

    Args:
        models: that the pool serves.
        gpus_per_node: so many GPUs a node has; what its pods take together is at most that.
    """
    # The largest sum of sizes that fits the node's GPUs: best[n] is (bytes, models) with at most n GPUs.
    best: list[tuple[float, tuple[OnNode, ...]]] = [(0.0, ())] * (gpus_per_node + 1)
    for model in models:
        taken = min(max(model.gpus, 1), gpus_per_node)
        for gpus in range(gpus_per_node, taken - 1, -1):
            size, others = best[gpus - taken]
            if size + model.size > best[gpus][0]:
                best[gpus] = (size + model.size, (*others, model))
    size, chosen = best[gpus_per_node]
    # Images of servers are about equal: at most as many as pods fit, whichever models those are of.
    pods = min(gpus_per_node, len(models))
    servers = min(len({model.server_image for model in models}), pods)
    return DiskNeed(size / GB, max(servers, 1), max(len(chosen), 1))
