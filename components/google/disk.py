"""How large the disk of a GPU node has to be, so that pulling a model never ends in eviction.

The whole image lands on the node's boot disk, twice: containerd keeps the compressed blobs it pulled and the
unpacked layers; weights do not compress, and are pushed uncompressed, so both are as large as the model.
While a new version rolls out, the old one is still there.

The kubelet starts to delete images above 85 % (`imageGCHighThresholdPercent`), cannot delete those in use
(`ImageGCFailed`), and evicts pods when less than 15 % are left (`imagefs.available`): all that has to be
on the disk at once must fit below 85 % of it.
Source: https://kubernetes.io/docs/concepts/architecture/garbage-collection/ and
https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/
"""

from __future__ import annotations

import math
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
class DiskNeed:
    """What has to fit on a node's disk, in GB; `disk` is the size that it follows to have."""

    model: float

    @property
    def used(self) -> float:
        """All that is on the disk at once."""
        return SYSTEM + SERVER_IMAGE + SCRATCH + self.model * COPIES * VERSIONS

    @property
    def disk(self) -> int:
        """The smallest disk on which that stays below the threshold, rounded up to whole tens."""
        return max(SMALLEST_DISK, math.ceil(self.used / HIGH_THRESHOLD / 10) * 10)

    def __str__(self) -> str:
        return (
            f"({SYSTEM} system + {SERVER_IMAGE} server image + {SCRATCH} scratch + {COPIES} * {VERSIONS} * "
            f"{self.model:.1f} model) / {HIGH_THRESHOLD:.2f} = {self.used / HIGH_THRESHOLD:.0f} GB"
        )


def need(model_bytes: float) -> DiskNeed:
    """Return what a model of so many bytes needs."""
    return DiskNeed(model_bytes / GB)
