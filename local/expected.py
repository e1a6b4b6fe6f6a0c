"""How long `make up` will take on this machine, by what it has already."""

from __future__ import annotations

import os
from collections.abc import Collection

from local.instance import cache_root

#: Seconds that building a program took on two processors, from empty caches (docs/local-stack.md).
BUILD = {
    "pulumi": 204,
    "pulumi-resource-docker-build": 102,
    "buildkitd": 32,
    "buildx": 2,
    "kube-apiserver": 171,
    "kube-controller-manager": 88,
    "kube-scheduler": 7,
    "kubelet": 24,
    "kserve-manager": 229,
    "kube-router": 93,
    "pulumi-resource-kubernetes": 106,
}
#: Of any other program.
OTHER = 30
#: Seconds that a download is assumed to last, of 60 MB at 10 MB/s; not measured.
DOWNLOAD = 6
#: Seconds: to install the model server, to start the platform, to deploy, and to deploy where all is there.
SERVER, PLATFORM, DEPLOYMENT, NOTHING = 52, 18, 30, 8
#: Processors that the times of building are of. More share the work, up to eight.
MEASURED_ON, MOST = 2, 8


def of_build(name: str, processors: int | None = None) -> float:
    """Return the seconds that building a program from empty caches takes; processors: as `seconds`."""
    return BUILD.get(name, OTHER) * MEASURED_ON / min(processors or os.cpu_count() or 1, MOST)


def seconds(
    missing: Collection[str],
    *,
    server: bool,
    running: bool,
    processors: int | None = None,
    downloads: Collection[str] = (),
) -> float:
    """Return how long it will take.

    Args:
        missing: programs that are not there yet.
        server: whether the model server is installed.
        running: whether the platform runs.
        processors: of this machine, where not its own number.
        downloads: those of `missing` that are downloaded; the others are built.
    """
    built = [name for name in missing if name not in downloads]
    building = sum(of_build(name, processors) for name in built) + DOWNLOAD * len(downloads)
    installing = 0 if server else SERVER
    if running and not building and not installing:
        return NOTHING
    return building + installing + (0 if running else PLATFORM) + DEPLOYMENT


def told(missing: Collection[str], *, running: bool, downloads: Collection[str] = ()) -> str:
    """Return a line for people; as `seconds`."""
    folder = cache_root() / "servers"
    server = folder.is_dir() and any(folder.iterdir())
    whole = seconds(missing, server=server, running=running, downloads=downloads)
    about = f"about {whole / 60:.0f} minutes" if whole >= 90 else f"about {max(5, round(whole / 5) * 5)} s"
    work = ((len(downloads), "download"), (len(missing) - len(downloads), "build"))
    parts = [f"{count} program{'s' * (count != 1)} to {verb}" for count, verb in work if count]
    first = f": {' and '.join(parts)} first, once" if parts else ""
    return f"this takes {about} here{first}"
