"""GPUs and the machines that carry them.

Sources: https://cloud.google.com/compute/docs/gpus (machine types and counts),
https://cloud.google.com/kubernetes-engine/docs/how-to/gpus (what GKE takes).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from local.standins.gcp_provider.findings import (
    Finding,
    Path,
    did_you_mean,
    given,
    items_at,
    number_at,
    text_at,
    true_at,
)


@dataclass(frozen=True)
class Gpu:
    """One GPU type: machine types that carry it (a pattern and in words), and how many they may have."""

    machines: str
    named: str
    counts: tuple[int, ...]


GPUS: Final = {
    "nvidia-l4": Gpu(r"g2-(standard-\d+|custom-.+)", "g2-standard-*", (1, 2, 4, 8)),
    "nvidia-tesla-t4": Gpu(r"n1-.+", "n1-*", (1, 2, 4)),
    "nvidia-tesla-p4": Gpu(r"n1-.+", "n1-*", (1, 2, 4)),
    "nvidia-tesla-p100": Gpu(r"n1-.+", "n1-*", (1, 2, 4)),
    "nvidia-tesla-v100": Gpu(r"n1-.+", "n1-*", (1, 2, 4, 8)),
    "nvidia-tesla-a100": Gpu(
        r"a2-(highgpu-[1248]g|megagpu-16g)", "a2-highgpu-1g … a2-highgpu-8g, a2-megagpu-16g", (1, 2, 4, 8, 16)
    ),
    "nvidia-a100-80gb": Gpu(r"a2-ultragpu-[1248]g", "a2-ultragpu-1g … a2-ultragpu-8g", (1, 2, 4, 8)),
    "nvidia-h100-80gb": Gpu(r"a3-(highgpu-[1248]g|edgegpu-8g)", "a3-highgpu-*", (1, 2, 4, 8)),
    "nvidia-h100-mega-80gb": Gpu(r"a3-megagpu-8g", "a3-megagpu-8g", (8,)),
    "nvidia-h200-141gb": Gpu(r"a3-ultragpu-8g", "a3-ultragpu-8g", (8,)),
    "nvidia-b200": Gpu(r"a4-highgpu-8g", "a4-highgpu-8g", (8,)),
    "nvidia-gb200": Gpu(r"a4x-highgpu-4g", "a4x-highgpu-4g", (4,)),
    "nvidia-rtx-pro-6000": Gpu(r"g4-standard-\d+", "g4-standard-*", (1, 2, 4, 8)),
}
# GPUs that a G2 machine type always has.
_G2: Final = {4: 1, 8: 1, 12: 1, 16: 1, 24: 2, 32: 1, 48: 4, 96: 8}
# The same of G4; smaller ones have a part of one, which counts as one.
_G4: Final = {6: 1, 12: 1, 24: 1, 48: 1, 96: 2, 192: 4, 384: 8}
# What machines of a series boot from.
_BOOT_DISKS: Final = (
    (r"(a3-ultragpu|a4|a4x|g4)-", ("hyperdisk-balanced",)),
    (r"a3-", ("pd-balanced", "pd-ssd", "hyperdisk-balanced")),
    (r"g2-", ("pd-balanced", "pd-ssd")),
    (r"(a2|n1)-", ("pd-balanced", "pd-ssd", "pd-standard")),
)
# Machines that cannot be had on demand.
_CAPACITY: Final = (
    (r"a3-highgpu-[124]g", ("spot", "flexStart")),
    (r"a3-ultragpu-8g|a4-highgpu-8g", ("spot", "flexStart", "reservation")),
    (r"a4x-highgpu-4g", ("reservation",)),
)
_LOCAL_SSDS: Final = {
    **{f"g2-standard-{cpus}": (1,) for cpus in (4, 8, 12, 16, 32)},
    **{"g2-standard-24": (2,), "g2-standard-48": (4,), "g2-standard-96": (8,)},
    **{"g4-standard-12": (1,), "g4-standard-24": (2,), "g4-standard-48": (4,), "g4-standard-96": (8,)},
    **{"g4-standard-192": (16,), "g4-standard-384": (32,)},
    **{"a2-highgpu-1g": (1, 2, 4, 8), "a2-highgpu-2g": (2, 4, 8), "a2-highgpu-4g": (4, 8)},
    **{"a2-highgpu-8g": (8,), "a2-megagpu-16g": (8,)},
    **{f"a2-ultragpu-{gpus}g": (gpus,) for gpus in (1, 2, 4, 8)},
    **{f"a3-highgpu-{gpus}g": (2 * gpus,) for gpus in (1, 2, 4, 8)},
    **{"a3-megagpu-8g": (16,), "a3-edgegpu-8g": (16,), "a3-ultragpu-8g": (32,)},
    **{"a4-highgpu-8g": (32,), "a4x-highgpu-4g": (4,)},
}
# N1 machines may have these numbers, whatever their size.
_N1_LOCAL_SSDS: Final = (*range(1, 9), 16, 24)
# Machines that always have their local SSDs.
_WITH_LOCAL_SSDS = re.compile(r"a3-.+|a4-.+")
# Most vCPUs of an N1 machine by its number of T4s.
_T4_CPUS: Final = {1: 48, 2: 48, 4: 96}
_GPU_FAMILIES = re.compile(r"(g2|g4|a2|a3|a4|a4x)-.+")
_FIXED = re.compile(r"a\dx?-(?:highgpu|megagpu|ultragpu|edgegpu)-(\d+)g")


def check_accelerators(inputs: Any, block: Path) -> Iterator[Finding]:
    """Yield what is wrong with the GPUs of a node config (block: the path of the node config)."""
    machine = text_at(inputs, *block, "machineType")
    for series, sizes in (("g2-standard-", _G2), ("g4-standard-", _G4)):
        if machine and machine.startswith(series) and _fixed_gpus(machine) is None:
            allowed = ", ".join(f"{series}{size}" for size in sizes)
            yield Finding((*block, "machineType"), allowed, f"choose one of the {series[:2].upper()} sizes")
    for path, _ in items_at(inputs, *block, "guestAccelerators"):
        name = text_at(inputs, *path, "type")
        if name is not None:
            yield from _check_one(inputs, path, name, machine, (*block, "machineType"))
        yield from _check_sharing(inputs, path)


def _check_one(
    inputs: Any, path: Path, name: str, machine: str | None, at_machine: Path
) -> Iterator[Finding]:
    gpu = GPUS.get(name)
    if gpu is None:
        if not name.startswith(("tpu", "ct")):
            hint = did_you_mean(name, GPUS)
            yield Finding((*path, "type"), ", ".join(GPUS), f"{hint}Give the name of a GPU that GKE has")
        return
    count = number_at(inputs, *path, "count")
    if count is not None and count not in gpu.counts:
        listed = ", ".join(map(str, gpu.counts))
        yield Finding((*path, "count"), f"{listed} for {name}", "give one of these numbers")
        return
    if machine is None:
        return
    if re.fullmatch(gpu.machines, machine) is None:
        yield Finding(at_machine, f"{gpu.named} for {name}", "choose a machine that has this GPU")
        return
    if count is None:
        return
    fixed = _fixed_gpus(machine)
    if fixed is not None and fixed != count:
        fix = f"set count to {fixed}, or choose a machine with another number of GPUs"
        yield Finding((*path, "count"), f"{fixed}, which is what {machine} has", fix)
    cpus = re.fullmatch(r"n1-\w+-(\d+)", machine)
    if name == "nvidia-tesla-t4" and cpus and int(cpus[1]) > _T4_CPUS[count]:
        allowed = f"an N1 machine with at most {_T4_CPUS[count]} vCPUs for {count} x {name}"
        yield Finding(at_machine, allowed, "choose a smaller machine or more GPUs")


def _check_sharing(inputs: Any, path: Path) -> Iterator[Finding]:
    """https://cloud.google.com/kubernetes-engine/docs/how-to/timesharing-gpus: 2 to 48 clients a GPU."""
    where = (*path, "gpuSharingConfig", "maxSharedClientsPerGpu")
    clients = number_at(inputs, *where)
    if clients is not None and not 2 <= clients <= 48:
        yield Finding(where, "2 to 48", "give a number in that range")


def _fixed_gpus(machine: str) -> int | None:
    """Return how many GPUs a machine type always has, None where that is chosen."""
    if machine.startswith(("g2-standard-", "g4-standard-")):
        size = machine.rpartition("-")[2]
        sizes = _G2 if machine.startswith("g2") else _G4
        return sizes.get(int(size)) if size.isdigit() else None
    found = _FIXED.fullmatch(machine)
    return int(found[1]) if found else None


def check_gpu_disk(inputs: Any, block: Path) -> Iterator[Finding]:
    """What a machine with GPUs can boot from.

    https://cloud.google.com/compute/docs/accelerator-optimized-machines ("Supported disk types")
    """
    machine = text_at(inputs, *block, "machineType") or ""
    disks = next((disks for series, disks in _BOOT_DISKS if re.match(series, machine)), None)
    if disks is None:
        return
    where = (*block, "diskType")
    disk = text_at(inputs, *where)
    if disk is None and given(inputs, *where):
        return  # not known yet
    if (disk or "pd-balanced") not in disks:
        allowed = f"{' or '.join(disks)} for {machine}"
        yield Finding(where, allowed, f"set diskType to {disks[0]}")


def check_gpu_capacity(inputs: Any, block: Path) -> Iterator[Finding]:
    """How Google sells machines with GPUs: some not on demand, but as spot, flex-start or reserved.

    https://cloud.google.com/compute/docs/accelerator-optimized-machines ("Consumption option availability")
    """
    machine = text_at(inputs, *block, "machineType") or ""
    ways = next((ways for series, ways in _CAPACITY if re.fullmatch(series, machine)), None)
    affinity = (*block, "reservationAffinity", "consumeReservationType")
    reserved = "reservation" if text_at(inputs, *affinity) == "SPECIFIC_RESERVATION" else None
    taken = next((way for way in ("spot", "flexStart") if true_at(inputs, *block, way)), reserved)
    if ways and taken not in ways:
        yield Finding((*block, "machineType"), f"{machine} as {' or '.join(ways)} only", f"set {ways[0]}")


def check_local_ssds(inputs: Any, block: Path) -> Iterator[Finding]:
    """https://cloud.google.com/compute/docs/disks/local-ssd: how many a machine with GPUs takes."""
    machine = text_at(inputs, *block, "machineType") or ""
    where = (*block, "ephemeralStorageLocalSsdConfig", "localSsdCount")
    count = number_at(inputs, *where)
    counts = _N1_LOCAL_SSDS if machine.startswith("n1-") else _LOCAL_SSDS.get(machine)
    if count and counts and count not in counts:
        listed = ", ".join(map(str, counts))
        yield Finding(where, f"{listed} local SSDs on {machine}", "give one of these numbers")


def attached_ssds(machine: str) -> int:
    """Return how many local SSDs GKE attaches to a machine without being asked.

    https://cloud.google.com/kubernetes-engine/docs/reference/rest/v1/NodeConfig: localSsdCount of zero, or
    unset, means the number that goes with the machine type.
    """
    [count] = _LOCAL_SSDS.get(machine, (0,)) if _WITH_LOCAL_SSDS.fullmatch(machine) else (0,)
    return count


def has_gpus(inputs: Any, block: Path) -> bool:
    """Say whether the nodes of a node config are known to have GPUs."""
    machine = text_at(inputs, *block, "machineType") or ""
    listed = any(True for _ in items_at(inputs, *block, "guestAccelerators"))
    return listed or _GPU_FAMILIES.fullmatch(machine) is not None


def check_live_migration(inputs: Any, block: Path) -> Iterator[Finding]:
    """https://cloud.google.com/compute/docs/gpus/gpu-host-maintenance: GPU machines are not migrated live."""
    where = (*block, "confidentialNodes", "enabled")
    machine = text_at(inputs, *block, "machineType") or ""
    if true_at(inputs, *where) and has_gpus(inputs, block) and not machine.startswith("a3-highgpu-1g"):
        allowed = "confidential nodes with GPUs on a3-highgpu-1g only"
        yield Finding(where, allowed, "use a3-highgpu-1g or turn confidential nodes off")
