"""What a start of a larger model would take elsewhere: measured costs, or the disk and network's rates."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from components.config import disk

GB = 1e9
MIB = 2**20
GIB = 2**30

#: GB/s. Ten gigabits: what machines of GKE with one GPU have at least (g2-standard-4 and larger).
#: https://cloud.google.com/compute/docs/gpus/gpu-network-bandwidth
NETWORK = 1.25

#: MiB/s: what any disk of the type has, what each GiB adds, and the most.
#: https://cloud.google.com/compute/docs/disks/performance
PERSISTENT_DISKS = {"pd-balanced": (140, 0.28, 1200), "pd-ssd": (240, 0.48, 1200)}
#: MiB/s, written and read: of four local SSDs (NVMe, 1.5 TB) as one. Same source.
LOCAL_SSD = (1400, 2650)


@dataclass(frozen=True)
class Estimate:
    """A number of seconds, and how far off it may be (two standard errors)."""

    seconds: float
    error: float

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(self.seconds + other.seconds, math.hypot(self.error, other.error))

    def __str__(self) -> str:
        return f"{self.seconds:.0f} ± {self.error:.0f}" if self.error >= 0.5 else f"{self.seconds:.0f}"


@dataclass(frozen=True)
class Fit:
    """A line: seconds = fixed + slope * GB. error: of the slope, one standard error."""

    fixed: float
    slope: float
    error: float

    def __str__(self) -> str:
        return f"{round(self.fixed, 2) + 0.0:.2f} + {self.slope:.2f} (± {2 * self.error:.2f}) * GB"


@dataclass(frozen=True)
class Machine:
    """disk: its name. write, read, network: GB/s."""

    disk: str
    write: float
    read: float
    network: float = NETWORK


def fit(sizes: Sequence[float], seconds: Sequence[float]) -> Fit:
    """Return the line of least squares.

    Raises:
        ValueError: there are fewer than three points, which say nothing about the error.
    """
    if len(sizes) < 3:
        raise ValueError("a line with its error takes three points")
    slope, fixed = statistics.linear_regression(sizes, seconds)
    left = [y - fixed - slope * x for x, y in zip(sizes, seconds, strict=True)]
    mean = statistics.fmean(sizes)
    spread = sum((x - mean) ** 2 for x in sizes)
    return Fit(fixed, slope, math.sqrt(sum(part**2 for part in left) / (len(sizes) - 2) / spread))


def machines(size: float) -> Iterator[Machine]:
    """Yield what a model of so many GB may be served on: with the disk that the program gives its nodes."""
    gigabytes = disk.need([disk.OnNode(size * GB)]).disk
    for name, (base, each, most) in PERSISTENT_DISKS.items():
        rate = min(base + each * gigabytes * GB / GIB, most) * MIB / GB
        yield Machine(f"{name}, {gigabytes} GB", rate, rate)
    write, read = (rate * MIB / GB for rate in LOCAL_SSD)
    yield Machine("4 local SSDs", write, read)


def forecast(size: float, pull: Fit, load: Fit, machine: Machine) -> tuple[Estimate, Estimate]:
    """Return what pulling and loading so many GB takes: the slowest of processor, disk and network.

    The image is written twice, as blobs and as unpacked layers, and read once.
    """
    return (
        _bound(size, pull, [1 / machine.network, disk.COPIES / machine.write]),
        _bound(size, load, [1 / machine.read]),
    )


def _bound(size: float, line: Fit, costs: Sequence[float]) -> Estimate:
    """The measured slope has an error; a stated rate is taken as it is."""
    rate = max(costs)
    fixed = max(0.0, line.fixed)
    if line.slope >= rate:
        return Estimate(fixed + line.slope * size, 2 * line.error * size)
    return Estimate(fixed + rate * size, 0.0)
