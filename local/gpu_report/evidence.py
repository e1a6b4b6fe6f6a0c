"""That a pod is on the GPU: what `make validate` sees from inside of it, and its shared memory."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from components.cluster.access import JSON, Cluster, ClusterError
from components.manifests.service import CONTAINER
from local.gpu_report.children import Failed
from operations import gpu


def evidence(cluster: Cluster, pod: JSON) -> dict[str, Any]:
    """Return the cards that a pod sees, its processes on them, and its /dev/shm.

    Raises:
        Failed: it cannot be looked into, or its server is on fewer cards than it asked for.
    """
    seen = gpu.look(cluster, pod)
    if isinstance(seen, str):
        raise Failed(f"the pod cannot be looked into: {seen}")
    box = next(one for one in pod["spec"]["containers"] if one["name"] == CONTAINER)
    asked = int(box["resources"]["limits"]["nvidia.com/gpu"])
    for verdict in gpu.verdicts(asked, seen, pod):
        if not verdict.passed:
            raise Failed(f"{verdict.evidence}. {verdict.fix}")
    return {
        "cards": [asdict(card) for card in seen.cards],
        "processes": [asdict(process) for process in seen.processes],
        "sharedMemory": _shared_memory(cluster, pod),
    }


def _shared_memory(cluster: Cluster, pod: JSON) -> str:
    metadata, command = pod["metadata"], ["sh", "-c", "df -h /dev/shm | tail -1"]
    try:
        return " ".join(cluster.execute(metadata["namespace"], metadata["name"], CONTAINER, command).split())
    except ClusterError as error:
        return str(error)
