"""Why a pod is not what it should be, in the words of Kubernetes: states, events, last lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from components.cluster.access import JSON, Cluster, ClusterError
from components.manifests.network import SERVICE_LABEL

#: Last lines of a container's log that are shown.
LINES = 8

#: Phases that a pod does not leave (https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-phase).
ENDED = ("Failed", "Succeeded")


def pods_of(cluster: Cluster, namespace: str, service: str) -> list[JSON]:
    """Return the pods of an InferenceService that count, the newest last.

    Not those that are on their way out. A pod that the kubelet refused or evicted (phase Failed: a GPU node
    that starts again refuses the pods that it finds before the device plugin has registered) stays as an
    object, and its ReplicaSet replaces it: it counts until a newer one is ready.
    """
    here = [pod for pod in _all_of(cluster, namespace, service) if not _leaves(pod)]
    here.sort(key=_made)
    ready = max((_made(pod) for pod in here if is_ready(pod)), default="")
    return [pod for pod in here if pod["status"].get("phase") not in ENDED or _made(pod) >= ready]


def _made(pod: JSON) -> str:
    return str(pod["metadata"].get("creationTimestamp", ""))


def leaving(cluster: Cluster, namespace: str, service: str) -> list[str]:
    """Return the names of an InferenceService's pods that are on their way out."""
    return [str(pod["metadata"]["name"]) for pod in _all_of(cluster, namespace, service) if _leaves(pod)]


def _all_of(cluster: Cluster, namespace: str, service: str) -> list[JSON]:
    path = f"/api/v1/namespaces/{namespace}/pods"
    label = f"{SERVICE_LABEL}={service}"
    found: list[JSON] = (cluster.get(path, labelSelector=label) or {}).get("items") or []
    return found


def _leaves(pod: JSON) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def is_ready(pod: JSON) -> bool:
    """Tell whether a pod's containers are all ready."""
    conditions = pod["status"].get("conditions") or []
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def ready_of(pods: Iterable[JSON]) -> list[JSON]:
    """Return those that are ready, the newest last; in Knative mode the newest revision's."""
    return sorted(filter(is_ready, pods), key=lambda pod: (revision_of(pod), _made(pod)))


def revision_of(pod: JSON) -> str:
    """Return the Knative revision that a pod is of, which ends in its number; empty without Knative."""
    return str((pod["metadata"].get("labels") or {}).get("serving.knative.dev/revision", ""))


def proxied(pod: JSON, port: int) -> str:
    """Return the path below which the API server hands requests on to a pod's port."""
    metadata = pod["metadata"]
    return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}:{port}/proxy"


def why(cluster: Cluster, pod: JSON) -> str:
    """Return the reason that a pod does not run, from most to least telling; never empty.

    Without the right to read events its states tell, and that its events are not seen.
    """
    known, phase = (
        [*_states(pod), *_conditions(pod)],
        f"the pod is {pod['status'].get('phase', 'in no phase')}",
    )
    try:
        warnings = list(_warnings(cluster, pod))
    except ClusterError as error:
        if error.status != 403:
            raise
        known, warnings = known or [phase], [f"its events are not seen: {error}"]
    return "; ".join(list(dict.fromkeys([*known, *warnings]))[:4]) or phase


def last_log(cluster: Cluster, pod: JSON, container: str, lines: int = LINES) -> str:
    """Return the end of a container's log; of the one that ended last, where it has been started again.

    The API server itself gives that one while it waits for the next start (CrashLoopBackOff), and the new
    one's, which has not failed yet, as soon as that runs.
    """
    metadata = pod["metadata"]
    if _runs_again(pod, container):
        ended = cluster.logs(metadata["namespace"], metadata["name"], container, lines, previous=True)
        if ended.strip():
            return ended
    return cluster.logs(metadata["namespace"], metadata["name"], container, lines)


def last_lines(cluster: Cluster, pod: JSON, container: str) -> list[str]:
    """Return the last lines that a container said, as `last_log`."""
    return shown(last_log(cluster, pod, container))


def shown(log: str) -> list[str]:
    """Return the lines of a log's end that are shown."""
    return [line for line in log.splitlines() if line.strip()][-LINES:]


def _runs_again(pod: JSON, container: str) -> bool:
    return any(
        box["name"] == container
        and "running" in (box.get("state") or {})
        and "terminated" in (box.get("lastState") or {})
        for box in pod["status"].get("containerStatuses") or []
    )


def _states(pod: JSON) -> Iterator[str]:
    status = pod["status"]
    if status.get("reason"):  # of the whole pod: Evicted, or UnexpectedAdmissionError of a device plugin
        yield f"{status['reason']}: {status.get('message', '')}".strip()
    for box in boxes(pod):
        for state in (box.get("state") or {}, box.get("lastState") or {}):
            waiting: dict[str, Any] = state.get("waiting") or {}
            ended: dict[str, Any] = state.get("terminated") or {}
            if waiting.get("reason") not in {None, "PodInitializing", "ContainerCreating"}:
                yield f"{box['name']}: {waiting['reason']} {waiting.get('message', '')}".strip()
            if ended and ended.get("exitCode"):
                yield f"{box['name']}: {ended.get('reason')}, exit code {ended['exitCode']}"


def boxes(pod: JSON) -> list[JSON]:
    """Return what the kubelet says of each container of a pod, in the order in which they start."""
    status = pod["status"]
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _conditions(pod: JSON) -> Iterator[str]:
    for condition in pod["status"].get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield f"{condition.get('reason')}: {condition.get('message')}"


def _warnings(cluster: Cluster, pod: JSON) -> Iterator[str]:
    metadata = pod["metadata"]
    selector = f"involvedObject.name={metadata['name']},type=Warning"
    found = cluster.get(f"/api/v1/namespaces/{metadata['namespace']}/events", fieldSelector=selector) or {}
    for event in reversed(found.get("items") or []):
        yield f"{event.get('reason')}: {event.get('message')}"


def restarts(pod: JSON) -> int:
    """Return how often containers of a pod were started again, all together."""
    return sum(int(box["restartCount"]) for box in pod["status"].get("containerStatuses") or [])
