"""Why no node takes a pod that asks for GPUs: how many it asks for, and what the nodes have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.cluster.access import JSON, Cluster, ClusterError
from components.cluster.failures import Cause
from components.cluster.nodes import GPU
from components.config.model_spec import ModelSpec

#: The scheduler's own word for it: https://github.com/kubernetes/kubernetes/blob/v1.34.4/pkg/scheduler/framework/plugins/noderesources/fit.go
NOT_ENOUGH = f"Insufficient {GPU}"
#: Nodes and pods that are named; more would say the same.
NAMED = 4


@dataclass(frozen=True)
class Room:
    """A node's GPUs. capacity: that it has; allocatable: of those, that its device plugin finds healthy.

    holders: (pod, count) that hold them, `NAMESPACE/NAME`.
    """

    node: str
    capacity: int
    allocatable: int
    holders: tuple[tuple[str, int], ...] = ()

    @property
    def free(self) -> int:
        """GPUs that nobody holds."""
        return max(0, self.allocatable - sum(count for _, count in self.holders))


def asks(pod: JSON) -> int:
    """Return the GPUs that a pod asks for: of its containers together, or of its largest init container."""
    spec = pod["spec"]
    together = sum(_limit(box) for box in spec.get("containers") or [])
    return max([together, *(_limit(box) for box in spec.get("initContainers") or [])])


def lacks_gpus(pod: JSON) -> bool:
    """Tell whether the scheduler found no node with enough free GPUs for a pod."""
    return any(
        entry["type"] == "PodScheduled"
        and entry["status"] == "False"
        and NOT_ENOUGH in str(entry.get("message"))
        for entry in pod["status"].get("conditions") or []
    )


def why_no_room(cluster: Cluster, settings: ModelSpec, pod: JSON) -> Cause:
    """Return why the nodes' GPUs are not enough for a pod; without rights to look at them, what it asks."""
    try:
        rooms = rooms_of(cluster)
    except ClusterError as error:
        return Cause(
            f"{_asked(asks(pod))}, and no node has so many free; which has what is not told here: {error}",
            f"kubectl describe nodes: {GPU} under Allocatable and Allocated resources",
        )
    return judge(asks(pod), rooms, settings, str(pod["metadata"]["name"]))


def judge(asked: int, rooms: list[Room], settings: ModelSpec, pod: str = "") -> Cause:
    """Return why so many GPUs are not to be had of these nodes, and what to do."""
    begin = _asked(asked)
    seen = [
        f"{room.node} has {room.allocatable}, {room.free} free"
        + (f" (held by {', '.join(f'{name}: {count}' for name, count in room.holders)})" * bool(room.holders))
        for room in rooms[:NAMED]
    ]
    told = "; ".join(seen) + (f"; and {len(rooms) - NAMED} more nodes" if len(rooms) > NAMED else "")
    most = max((room.allocatable for room in rooms), default=0)
    if not rooms:
        fix = (
            "a node pool with GPUs takes minutes to make a node; where none comes: kubectl describe pod (its "
            "autoscaler's reason), quota, maxNodes"
            if settings.pool_name
            else "a node with cards lacks its device plugin: kubectl get daemonsets -A | grep -i nvidia"
        )
        return Cause(f"{begin}, and no node offers any", fix)
    if not most:
        fix = "look at the device plugin's log on that node: kubectl get pods -A -o wide | grep -i nvidia"
        return Cause(f"{begin}, and the device plugins find no healthy one: {told}", fix)
    if asked > most:
        fix = f"set modelcar:gpuCount to at most {most}, or take nodes with {asked} (one pod is on one node)"
        return Cause(f"{begin}, and no node has so many: {told}", fix)
    fitting = [room.node for room in rooms if room.free >= asked]
    if fitting:
        fix = "see which rule of the pod keeps it off (node selector, taint, cordon): kubectl describe pod"
        return Cause(
            f"{begin}; {', '.join(fitting[:NAMED])} has them free, and the pod may not go there", fix
        )
    own = f"{settings.namespace}/{settings.service_name}-predictor"
    if any(
        name.startswith(own) and not name.endswith(f"/{pod}") for room in rooms for name, _ in room.holders
    ):
        fix = (
            "a former pod of this model holds them: modelcar:rollout Recreate ends it first; or one more node"
        )
        return Cause(f"{begin}, and no node has so many free: {told}", fix)
    return Cause(
        f"{begin}, and no node has so many free: {told}",
        "end what holds them (`make idle` for a model of this program), or let the pool have one more node",
    )


def rooms_of(cluster: Cluster) -> list[Room]:
    """Return the GPUs of each node that has some, and who holds them.

    Raises:
        ClusterError: rights to list nodes or pods are missing, or the API server went away.
    """
    rooms = []
    for node in (cluster.get("/api/v1/nodes") or {}).get("items") or []:
        capacity, allocatable = (gpus_in(node["status"].get(what)) for what in ("capacity", "allocatable"))
        if not capacity and not allocatable:
            continue
        name = str(node["metadata"]["name"])
        query = f"spec.nodeName={name}"
        here = (cluster.get("/api/v1/pods", fieldSelector=query) or {}).get("items") or []
        holders = tuple(
            (f"{pod['metadata']['namespace']}/{pod['metadata']['name']}", asks(pod))
            for pod in here
            if asks(pod) and pod["status"].get("phase") not in {"Succeeded", "Failed"}
        )
        rooms.append(Room(name, max(capacity, allocatable), allocatable, holders))
    return rooms


def _asked(count: int) -> str:
    return f"the pod asks for {count} GPU{'s' * (count != 1)} ({GPU})"


def _limit(box: Mapping[str, Any]) -> int:
    return gpus_in((box.get("resources") or {}).get("limits"))


def gpus_in(quantities: Mapping[str, Any] | None) -> int:
    """Return the GPUs among a node's or a container's resources."""
    text = str((quantities or {}).get(GPU) or "0")
    return int(text) if text.isdigit() else 0
