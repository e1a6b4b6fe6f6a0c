"""The smoke test's part about image volumes: what a node's container runtime makes of them.

Known to lie: a folder that is mounted and empty (k3s 1.36.1), a `subPath` that is ignored (containerd 2.1).
"""

from __future__ import annotations

from components.cluster.access import JSON, Cluster, ClusterError
from components.cluster.pods import why
from components.cluster.probe_image import TOKEN
from components.manifests import image_volume

#: Placements in the order in which they are taken, as `modelcar:placement` has them.
OFFERED = ("imageVolume", "servingRuntime", "storageUriEnv", "storageUris")
#: Not offered, and told for those who know them: an image volume with a subPath, and KServe 0.20's own way,
#: `oci+native://`, which mounts so.
SUB_PATH, NATIVE = "imageVolumeSubPath", "ociNative"
VOLUMES = ("imageVolume", SUB_PATH, NATIVE)
#: Said by the probe, beside what it finds.
WRITABLE, WHOLE = "writable", "the whole image"
#: States of a container that no second try changes: a runtime that knows no image volumes.
_REFUSALS = frozenset(
    {"CreateContainerError", "CreateContainerConfigError", "RunContainerError", "InvalidImageName"}
)


def node_kinds(cluster: Cluster) -> tuple[str, ...]:
    """Return kubelet and container runtime of the nodes, each kind once; nothing without the right to ask."""
    try:
        found = (cluster.get("/api/v1/nodes") or {}).get("items") or []
    except ClusterError as error:
        if error.status not in {401, 403}:
            raise
        return ()
    told = [node["status"]["nodeInfo"] for node in found]
    return tuple(
        sorted({f"kubelet {one['kubeletVersion']}, {one['containerRuntimeVersion']}" for one in told})
    )


def offered(nodes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the placements to choose from: a probe on one node says nothing of other runtimes' volumes.

    Args:
        nodes: of `node_kinds`. Nobody knows whether nodes that may not be listed are alike: there an image
            volume comes last.
    """
    if len(nodes) == 1:
        return OFFERED
    others = tuple(name for name in OFFERED if name != "imageVolume")
    return others if nodes else (*others, "imageVolume")


def look_at_volume(
    cluster: Cluster, pod: JSON, image: str, placement: str, *, last: bool
) -> tuple[str, str, dict[str, bool]] | None:
    """Return verdict, reason and checks of an image that is mounted as a volume; None while nothing is known.

    Args:
        cluster: that is asked. pod: of the probe. image: of the probe.
        placement: of VOLUMES.
        last: nothing is waited for any more.
    """
    spec = pod["spec"]
    mounted = [(volume.get("image") or {}).get("reference") for volume in spec.get("volumes") or []]
    checks = {"image volume": image in mounted, "one container": len(spec["containers"]) == 1}
    if not all(checks.values()):
        if any(box["name"] == "storage-initializer" for box in spec.get("initContainers") or []):
            return "ignored", "KServe would download the URI: it knows no oci+native:// (0.20 does)", checks
        return (
            "ignored",
            "the pod has no image volume: the API server drops the field, or KServe does",
            checks,
        )
    said = cluster.logs(pod["metadata"]["namespace"], pod["metadata"]["name"], "kserve-container")
    if image_volume.EMPTY in said:
        return "ignored", f"{image_volume.EMPTY} (it says that it has, and the folder is empty)", checks
    if "found " in said:
        checks |= {
            "files": f"found {TOKEN}\n" in said,
            "read-only": f"{WRITABLE}\n" not in said,
        }
        if placement != "imageVolume":
            checks["subPath"] = f"{WHOLE}\n" not in said
        if all(checks.values()):
            return "works", "", checks
        if not checks.get("subPath", True):
            return "ignored", "the runtime ignores subPath and mounts the whole image", checks
        return "failed", f"the server says: {' '.join(said.split())}", checks
    reason = why(cluster, pod)
    if any(word in reason for word in _REFUSALS):
        return "refused", reason, checks
    return ("failed", reason, checks) if last else None
