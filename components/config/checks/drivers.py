"""Which NVIDIA driver a GPU node gets, and which one a model server needs.

GKE installs a driver that its node image knows: `nodes.driver` asks for that image's DEFAULT or its LATEST.
A server's image brings the CUDA libraries, which need a driver of their own generation; on an older one the
server ends at its start ("The NVIDIA driver on your system is too old").

Sources:
- CUDA and drivers (CUDA 13.x: 580 or newer, CUDA 12.x: 525 or newer):
  https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
- vLLM and CUDA ("image switched to CUDA 13.0"): https://github.com/vllm-project/vllm/releases/tag/v0.20.0;
  the variant with CUDA 12.9 has the suffix -cu129: https://github.com/vllm-project/vllm/pull/39878
- drivers of GKE 1.31 to 1.33: https://cloud.google.com/kubernetes-engine/docs/how-to/gpus#installing_drivers
- drivers of GKE 1.34, whose nodes have COS 125 (R580 is the default since cos-125-19216-0-76, and of all GPUs
  since cos-125-19216-104-45): https://cloud.google.com/container-optimized-os/docs/release-notes/m125
- node images, and what channels give: https://cloud.google.com/kubernetes-engine/docs/release-notes
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from components.config import gpus
from components.config.google import GoogleSettings, NodeSettings
from components.config.problems import problem
from components.config.settings import Settings
from modelcar.errors import Problem

#: The oldest driver branch that runs programs of a CUDA generation.
OLDEST_DRIVER = {12: 525, 13: 580}
#: First releases of vLLM whose image has a CUDA generation, the newest first.
VLLM_CUDA = (((0, 20, 0), 13), ((0, 1, 0), 12))
#: vllm/vllm-openai, whatever registry it was copied to; variants of the image carry their CUDA in the tag.
_VLLM = re.compile(r"(?:.*/)?vllm-openai:v(\d+)\.(\d+)\.(\d+)(?:-cu(\d\d)\d)?(?:@.*)?")
#: Makes vLLM load the driver library that its own image has, for data centre GPUs with an older driver:
#: vllm/env_override.py, https://docs.nvidia.com/deploy/cuda-compatibility/forward-compatibility.html
COMPATIBILITY = "VLLM_ENABLE_CUDA_COMPATIBILITY"


@dataclass(frozen=True)
class NodeImage:
    """The node image (Container-Optimized OS) of a GKE version, and the driver branches that it installs.

    since: the first version with it (major, minor, patch, GKE's own number). cos: its milestone.
    default, latest: branches; None where none of Google's pages says.
    """

    since: tuple[int, int, int, int]
    cos: int
    default: int | None
    latest: int


#: As known on 2026-11-28, the newest first. Every later version has at least the first row's drivers.
NODE_IMAGES = (
    NodeImage((1, 34, 1, 2037002), 125, 580, 580),
    NodeImage((1, 34, 0, 0), 125, None, 580),
    NodeImage((1, 32, 0, 0), 121, 535, 580),
    NodeImage((1, 31, 0, 0), 117, 535, 580),
)
#: What DEFAULT gives at least, on any of them.
LEAST = min(image.default for image in NODE_IMAGES if image.default)
#: Whose default is newer than the table's on images with R535, and raised from time to time.
OWN_DEFAULT = frozenset({gpus.H200, gpus.B200})
#: The oldest GKE version that has machines with a GPU: https://cloud.google.com/kubernetes-engine/docs/how-to/gpus
#: and https://cloud.google.com/cluster-toolkit/docs/deploy/gke/create-a4-cluster, …/create-a3-ultra-cluster
OLDEST_GKE = {
    gpus.H200: "1.31.5-gke.1169000",
    gpus.B200: "1.32.1-gke.1729000",
    gpus.RTX_PRO_6000: "1.34.0-gke.1662000",
}
#: The version that a cluster of a release channel has at least, where it is made now (2026-R35, 2026-08-20).
#: A cluster on EXTENDED may stay on an older one for two years.
CHANNELS = {"RAPID": "1.36", "REGULAR": "1.35", "STABLE": "1.34.9", "EXTENDED": None}
#: The first version by whose default driver CUDA 13 runs.
CUDA_13_GKE = "1.34"


def cuda_of(image: str) -> int | None:
    """Return the CUDA generation of a server image by its tag; None for an image that is not known here."""
    found, release = _VLLM.fullmatch(image), vllm_release(image)
    if found is None or release is None:
        return None
    if found[4]:
        return int(found[4])
    return next((cuda for since, cuda in VLLM_CUDA if release >= since), None)


def vllm_release(image: str) -> tuple[int, int, int] | None:
    """Return the release of vLLM's own image by its tag; None for an image that is not known here."""
    found = _VLLM.fullmatch(image)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def needed(settings: Settings) -> int | None:
    """Return the oldest driver branch that a model's server runs on; None where that is not known."""
    if settings.runtime != "vllm":
        return None
    return OLDEST_DRIVER.get(cuda_of(settings.server_image) or 0)


def version_of(text: str) -> tuple[int, int, int, int] | None:
    """Return a GKE version (`1.34.9-gke.1322001`, also shorter) as numbers; what is left out is highest."""
    found = re.fullmatch(r"v?(\d+)\.(\d+)(?:\.(\d+)(?:-gke\.(\d+))?)?(?:\D.*)?", text)
    if found is None:
        return None
    highest = 10**9
    return (
        int(found[1]),
        int(found[2]),
        int(found[3]) if found[3] else highest,
        int(found[4]) if found[4] else highest,
    )


def installed(nodes: NodeSettings, version: str) -> int | None:
    """Return the driver branch that a pool's nodes get at least on a GKE version; None where not known."""
    numbers = version_of(version)
    image = next((image for image in NODE_IMAGES if numbers and numbers >= image.since), None)
    if image is None or nodes.driver == "LATEST":
        return image.latest if image else None
    return None if image.default != image.latest and nodes.gpu in OWN_DEFAULT else image.default


def made_with(google: GoogleSettings) -> str | None:
    """Return the GKE version that the stack's own cluster has at least; None where another one made it."""
    return CHANNELS[google.cluster.release_channel] if google.cluster.create else None


def problems(settings: Settings, nodes: NodeSettings, version: str | None) -> Iterator[Problem]:
    """Yield why a model's server would end at its start on the driver of its nodes, if that is certain."""
    oldest, found = needed(settings), installed(nodes, version) if version else None
    if oldest and found and found < oldest and not _compatibility(settings):
        newer = "nodes.driver LATEST" if nodes.driver == "DEFAULT" else f"GKE {CUDA_13_GKE} or newer"
        yield problem(
            f"{_key(settings, nodes)}.driver",
            f"{nodes.driver}, which is R{found} on GKE {version}: {_server(settings)} would end at its start",
            f"a driver of R{oldest} or newer ({newer})",
            f"set driver of the pool {nodes.name} to LATEST, or upgrade the cluster to GKE {CUDA_13_GKE}",
        )


def too_old_for(nodes: NodeSettings, key: str, version: str | None) -> Iterator[Problem]:
    """Yield that a GKE version has no machines with a pool's GPU yet."""
    oldest = OLDEST_GKE.get(nodes.gpu)
    known = version_of(version) if version else None
    if oldest and known and known < (version_of(oldest) or known):
        value = f"{nodes.gpu} on a cluster of GKE {version}"
        yield problem(
            f"{key}.gpu", value, f"GKE {oldest} or newer for it", "upgrade the cluster, or take another GPU"
        )


def doubts(settings: Settings, nodes: NodeSettings, version: str | None) -> Iterator[str]:
    """Yield what a reviewer should know of a pool's driver where nothing is certain."""
    oldest = needed(settings)
    if not oldest:
        return
    found = installed(nodes, version) if version else None
    pool = f"pool {nodes.name}: {_server(settings)}"
    if found is not None and found < oldest:
        yield (
            f"{pool}, the nodes have R{found}, and {COMPATIBILITY} is set: the server loads the driver "
            "library of its own image, which was not tried here"
        )
    elif found is None and nodes.driver == "DEFAULT" and oldest > LEAST:
        where = f"GKE {version}" if version else f"a GKE version below {CUDA_13_GKE}, if the cluster has one,"
        yield (
            f"{pool}, and the default driver of {where} may be older (R{LEAST} before {CUDA_13_GKE}): set "
            "modelcar:google.nodes.driver to LATEST, or see `kubectl get nodes` for the version"
        )


def too_large(settings: Settings, nodes: NodeSettings, size: float) -> Iterator[str]:
    """Yield that a model's weights (bytes) are more than the memory of the GPUs that a pod asks for."""
    memory = gpus.GPU_MEMORY[nodes.gpu] * settings.gpu_count
    if size / 1e9 > memory:
        yield (
            f"pool {nodes.name}: {settings.key} has {size / 1e9:.0f} GB of weights, and its pod "
            f"{settings.gpu_count} x {nodes.gpu} with {memory} GB: it does not start, unless its arguments "
            "make it smaller"
        )


def _server(settings: Settings) -> str:
    image = settings.server_image.partition("@")[0].rpartition("/")[2]
    cuda = cuda_of(settings.server_image)
    return f"{image} has CUDA {cuda}, which needs a driver of R{needed(settings)} or newer"


def _key(settings: Settings, nodes: NodeSettings) -> str:
    pools = settings.google.pools if settings.google else ()
    return f"google.pools[{pools.index(nodes)}]" if nodes in pools else "google.nodes"


def _compatibility(settings: Settings) -> bool:
    said = dict(entry.partition("=")[::2] for entry in settings.server_env)
    return said.get(COMPATIBILITY, "").strip().lower() in {"1", "true"}
