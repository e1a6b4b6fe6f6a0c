"""Which GPU fits which machine type, what the machine has, and in which zones Google offers it.

Sources, read in copies of 2026-04 (pages say "Last updated 2026-04-13" and "2026-04-14"); Google adds zones
and machine types from time to time:
- machine types, boot disks and how capacity can be had: https://cloud.google.com/compute/docs/gpus and
  https://cloud.google.com/compute/docs/accelerator-optimized-machines
- names of the accelerators: https://cloud.google.com/kubernetes-engine/docs/how-to/gpus
- local SSDs: https://cloud.google.com/compute/docs/disks/local-ssd#lssd_disks_fixed
- zones: https://cloud.google.com/compute/docs/gpus/gpu-regions-zones
- what GKE keeps of a node: https://cloud.google.com/kubernetes-engine/docs/concepts/plan-node-sizes

A zone that is not in the table is refused, unless `google.nodes.checkZones` is off. GPUs that are mostly
reserved have no zones here: `google.nodes.zones`, or a zonal cluster, says where they are.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Types of the boot disk; of those that a machine takes, the first is the default.
PERSISTENT = ("pd-balanced", "pd-ssd")
HYPERDISK = ("hyperdisk-balanced",)
DISK_TYPES = (*PERSISTENT, *HYPERDISK)
#: How capacity can be had. Flex-start, which takes nodes away after at most seven days, is not offered here.
PROVISIONING = ("spot", "on-demand", "reservation")


@dataclass(frozen=True)
class Machine:
    """A machine type with its GPUs.

    gpu: as GKE names it. gpus: how many may be attached; memory: GiB (Google writes GB).
    ssds: how many local SSDs of 375 GB it may have.
    with_ssds: whether it always has them. GKE attaches them unasked and reports their number.
    disks: types that its boot disk may have, the default first. provisioning: ways to get one.
    """

    gpu: str
    gpus: tuple[int, ...]
    cpus: int
    memory: int
    ssds: tuple[int, ...]
    disks: tuple[str, ...] = PERSISTENT
    provisioning: tuple[str, ...] = PROVISIONING
    with_ssds: bool = False

    @property
    def own_ssds(self) -> int:
        """How many local SSDs it has without being asked for any."""
        return self.ssds[0] if self.with_ssds else 0


def _machines(
    gpu: str,
    *rows: tuple[str, int, int, int, tuple[int, ...]],
    disks: tuple[str, ...] = PERSISTENT,
    provisioning: tuple[str, ...] = PROVISIONING,
    with_ssds: bool = False,
) -> dict[str, Machine]:
    """Return machines of one series. rows: name, GPUs, processors, memory, local SSDs."""
    return {
        name: Machine(gpu, (gpus,), cpus, memory, ssds, disks, provisioning, with_ssds)
        for name, gpus, cpus, memory, ssds in rows
    }


L4, T4 = "nvidia-l4", "nvidia-tesla-t4"
A100_40, A100_80 = "nvidia-tesla-a100", "nvidia-a100-80gb"
H100, H100_MEGA, H200 = "nvidia-h100-80gb", "nvidia-h100-mega-80gb", "nvidia-h200-141gb"
B200, GB200, RTX_PRO_6000 = "nvidia-b200", "nvidia-gb200", "nvidia-rtx-pro-6000"

#: What nvidia-smi calls them, or a part of it. Seen: H100, H200; the others by NVIDIA's own names.
CARDS = {
    T4: "Tesla T4",
    L4: "NVIDIA L4",
    A100_40: "A100-SXM4-40GB",
    A100_80: "A100-SXM4-80GB",
    H100: "H100 80GB HBM3",
    H100_MEGA: "H100 80GB HBM3",
    H200: "H200",
    B200: "NVIDIA B200",
    GB200: "GB200",
    RTX_PRO_6000: "RTX PRO 6000",
}

#: GB of one GPU.
GPU_MEMORY = {
    T4: 16,
    L4: 24,
    A100_40: 40,
    A100_80: 80,
    H100: 80,
    H100_MEGA: 80,
    H200: 141,
    B200: 180,
    GB200: 186,
    RTX_PRO_6000: 96,
}

_N1_SSDS = (*range(1, 9), 16, 24)

MACHINES: dict[str, Machine] = {
    **_machines(
        L4,
        ("g2-standard-4", 1, 4, 16, (1,)),
        ("g2-standard-8", 1, 8, 32, (1,)),
        ("g2-standard-12", 1, 12, 48, (1,)),
        ("g2-standard-16", 1, 16, 64, (1,)),
        ("g2-standard-24", 2, 24, 96, (2,)),
        ("g2-standard-32", 1, 32, 128, (1,)),
        ("g2-standard-48", 4, 48, 192, (4,)),
        ("g2-standard-96", 8, 96, 384, (8,)),
    ),
    # Smaller ones share a GPU between machines, which takes other drivers.
    **_machines(
        RTX_PRO_6000,
        ("g4-standard-48", 1, 48, 180, (4,)),
        ("g4-standard-96", 2, 96, 360, (8,)),
        ("g4-standard-192", 4, 192, 720, (16,)),
        ("g4-standard-384", 8, 384, 1440, (32,)),
        disks=HYPERDISK,
    ),
    **_machines(
        A100_40,
        ("a2-highgpu-1g", 1, 12, 85, (1, 2, 4, 8)),
        ("a2-highgpu-2g", 2, 24, 170, (2, 4, 8)),
        ("a2-highgpu-4g", 4, 48, 340, (4, 8)),
        ("a2-highgpu-8g", 8, 96, 680, (8,)),
        ("a2-megagpu-16g", 16, 96, 1360, (8,)),
    ),
    **_machines(
        A100_80,
        ("a2-ultragpu-1g", 1, 12, 170, (1,)),
        ("a2-ultragpu-2g", 2, 24, 340, (2,)),
        ("a2-ultragpu-4g", 4, 48, 680, (4,)),
        ("a2-ultragpu-8g", 8, 96, 1360, (8,)),
    ),
    **_machines(
        H100,
        ("a3-highgpu-1g", 1, 26, 234, (2,)),
        ("a3-highgpu-2g", 2, 52, 468, (4,)),
        ("a3-highgpu-4g", 4, 104, 936, (8,)),
        disks=DISK_TYPES,
        provisioning=("spot",),
        with_ssds=True,
    ),
    **_machines(H100, ("a3-highgpu-8g", 8, 208, 1872, (16,)), disks=DISK_TYPES, with_ssds=True),
    **_machines(H100_MEGA, ("a3-megagpu-8g", 8, 208, 1872, (16,)), disks=DISK_TYPES, with_ssds=True),
    **_machines(
        H200,
        ("a3-ultragpu-8g", 8, 224, 2952, (32,)),
        disks=HYPERDISK,
        provisioning=("spot", "reservation"),
        with_ssds=True,
    ),
    **_machines(
        B200,
        ("a4-highgpu-8g", 8, 224, 3968, (32,)),
        disks=HYPERDISK,
        provisioning=("spot", "reservation"),
        with_ssds=True,
    ),
    **_machines(
        GB200,
        ("a4x-highgpu-4g", 4, 140, 884, (4,)),
        disks=HYPERDISK,
        provisioning=("reservation",),
    ),
    # T4s are attached to N1 machines: one or two of them up to 48 processors, four up to 96.
    "n1-standard-4": Machine(T4, (1, 2, 4), 4, 15, _N1_SSDS),
    "n1-standard-8": Machine(T4, (1, 2, 4), 8, 30, _N1_SSDS),
    "n1-standard-16": Machine(T4, (1, 2, 4), 16, 60, _N1_SSDS),
    "n1-standard-32": Machine(T4, (1, 2, 4), 32, 120, _N1_SSDS),
}

#: What Google sells and this program does not set up, with the reason.
#: https://cloud.google.com/ai-hypercomputer/docs/create/gke-ai-hypercompute-custom-a4x
NOT_OFFERED = {
    GB200: "its machines are Arm ones in racks of 72 GPUs. GKE wants reserved blocks, a placement policy of "
    "the rack's topology, networks for RDMA, and pods that tolerate the taint of Arm nodes; none is made here"
}

#: Of compute capability below 8.0: they cannot compute in bfloat16, and vLLM ends with an error there.
NO_BFLOAT16 = frozenset({T4})

GPUS = tuple(dict.fromkeys(machine.gpu for machine in MACHINES.values()))


def _zones(text: str) -> frozenset[str]:
    """`region:abc` stands for the zones region-a, region-b and region-c."""
    regions = (entry.split(":") for entry in text.split())
    return frozenset(f"{region}-{letter}" for region, letters in regions for letter in letters)


ZONES: dict[str, frozenset[str]] = {
    L4: _zones(
        "asia-east1:abc asia-northeast1:abc asia-northeast3:ab asia-south1:abc asia-southeast1:abc "
        "europe-west1:bc europe-west2:ab europe-west3:ab europe-west4:abc europe-west6:bc me-central2:ac "
        "northamerica-northeast2:ab us-central1:abc us-east1:bcd us-east4:ac us-west1:abc us-west4:ac"
    ),
    T4: _zones(
        "asia-east1:ac asia-east2:ac asia-northeast1:ac asia-northeast3:bc asia-south1:ab "
        "asia-southeast1:abc "
        "asia-southeast2:ab australia-southeast1:ac europe-central2:bc europe-west1:bcd europe-west2:ab "
        "europe-west3:b europe-west4:abc me-west1:bc northamerica-northeast1:c southamerica-east1:ac "
        "us-central1:abcf us-east1:cd us-east4:abc us-west1:ab us-west2:bc us-west3:b us-west4:ab"
    ),
    A100_40: _zones(
        "asia-northeast1:ac asia-northeast3:b asia-southeast1:bc europe-west4:ab me-west1:bc "
        "us-central1:abcf "
        "us-east1:b us-west1:b us-west3:b us-west4:b"
    ),
    A100_80: _zones("asia-southeast1:c europe-west4:a us-central1:ac us-east4:c us-east5:b"),
    H100: _zones(
        "asia-northeast1:b asia-southeast1:bc europe-west1:bc europe-west4:bc us-central1:abc us-east4:ab "
        "us-east5:a us-west1:ab us-west4:a"
    ),
    H100_MEGA: _zones(
        "asia-northeast1:b asia-south1:bc asia-southeast1:bc europe-west1:bc europe-west4:bc us-central1:abc "
        "us-east4:abc us-east5:a us-west1:ab us-west4:a"
    ),
}


def region_of(location: str) -> str:
    """Return the region of a zone, or the region itself."""
    return location.rsplit("-", 1)[0] if location.count("-") == 2 else location


def is_zone(location: str) -> bool:
    """Tell a zone (`europe-west4-a`) from a region (`europe-west4`)."""
    return location.count("-") == 2


def allocatable_memory(memory: float) -> float:
    """Return what GKE leaves for pods of a node's memory, in GiB.

    GKE keeps 25 % of the first 4 GiB, 20 % of the next 4, 10 % of the next 8, 6 % of the next 112 and 2 % of
    the rest, and evicts below 100 MiB.
    """
    kept, left = 0.0, memory
    for step, share in ((4, 0.25), (4, 0.20), (8, 0.10), (112, 0.06), (float("inf"), 0.02)):
        part = min(left, step)
        kept += part * share
        left -= part
    return memory - kept - 100 / 1024


def allocatable_cpus(cpus: int) -> float:
    """Return what GKE leaves for pods of a node's processors.

    GKE keeps 6 % of the first, 1 % of the second, 0.5 % of the next two and 0.25 % of the rest.
    """
    shares = [0.06, 0.01, 0.005, 0.005]
    kept = sum(shares[:cpus]) + max(cpus - len(shares), 0) * 0.0025
    return cpus - kept


#: What GKE's own DaemonSets request on a GPU node (logging, metrics, networking, device plugin), rounded up.
SYSTEM_PODS_CPU = 0.5
SYSTEM_PODS_MEMORY = 1.0
