"""Why a model is not served: what a person looks for in events and logs, for the error of a failed `up`."""

from __future__ import annotations

from collections.abc import Iterator

from components.model_service import CONTAINER
from components.settings import Settings
from modelcar.errors import InputError
from operations.cluster import JSON, Cluster, ClusterError
from operations.pods import is_ready, last_lines, pods_of, why

#: Pods that are told of; more would say the same.
PODS = 2


def reasons(settings: Settings) -> list[str]:
    """Return why the stack's InferenceService is not ready, and whether a former pod still serves.

    Never raises: it explains an error, and must not take its place.
    """
    try:
        return list(_reasons(Cluster.of(settings), settings))
    except (ClusterError, InputError) as error:
        return [f"the cluster does not say why: {error}"]


def _reasons(cluster: Cluster, settings: Settings) -> Iterator[str]:
    name = f"{settings.namespace}/{settings.service_name}"
    found = sorted(
        pods_of(cluster, settings.namespace, settings.service_name),
        key=lambda pod: str(pod["metadata"]["creationTimestamp"]),
        reverse=True,
    )
    failing = [pod for pod in found if not is_ready(pod)]
    for pod in failing[:PODS]:
        yield f"{pod['metadata']['name']}: {why(cluster, pod)}"
        said = _said(cluster, pod)
        if said:
            yield "its log ends:\n  " + "\n  ".join(said)
    if not failing:
        yield from _conditions(cluster, settings)
    serving = [pod["metadata"]["name"] for pod in found if is_ready(pod)]
    if failing and serving:
        yield f"{name} is still served by {', '.join(serving)}, as before"
    elif not found:
        yield f"{name} has no pod"


def _said(cluster: Cluster, pod: JSON) -> list[str]:
    """Return the last lines of the server, or of what ended before it."""
    said = last_lines(cluster, pod, CONTAINER)
    if said:
        return said
    ended = [
        box["name"]
        for box in pod["status"].get("initContainerStatuses") or []
        if (box.get("lastState") or {}).get("terminated") or (box.get("state") or {}).get("terminated")
    ]
    return last_lines(cluster, pod, ended[-1]) if ended else []


def _conditions(cluster: Cluster, settings: Settings) -> Iterator[str]:
    path = (
        f"/apis/serving.kserve.io/v1beta1/namespaces/{settings.namespace}"
        f"/inferenceservices/{settings.service_name}"
    )
    status = (cluster.get(path) or {}).get("status") or {}
    for condition in status.get("conditions") or []:
        if condition.get("status") == "False" and condition.get("message"):
            yield f"{condition['type']}: {condition.get('reason', '')} {condition['message']}".strip()
