"""Whether a change of a served model has come to its pods, and why not: for `up` and its error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pulumi

from components.model_service import CONTAINER, REVISION
from components.settings import Settings
from modelcar.errors import InputError
from operations.cluster import JSON, POLL, Cluster, ClusterError
from operations.failures import SEARCHED, Cause, cause
from operations.pods import is_ready, last_lines, last_log, pods_of, shown, why
from operations.room import lacks_gpus, why_no_room

#: Pods that are told of; more would say the same.
PODS = 2


def await_rolled_out(
    settings: Settings, revision: str, say: Callable[[str], object], *, patience: float | None = None
) -> None:
    """Wait until all pods of the stack's InferenceService are of a revision, and ready.

    KServe reports Ready as long as any pod serves, and so does so before it has looked at a change; its
    Deployment `NAME-predictor` (Standard mode) tells more.

    Args:
        settings: the stack's.
        revision: of the declaration, `components.model_service.revision`.
        say: is told what is waited for, when that changes.
        patience: seconds; `startTimeoutSeconds` and a minute where None.

    Raises:
        pulumi.RunError: they are not in time, or the cluster does not let us look.
    """
    path = f"/apis/apps/v1/namespaces/{settings.namespace}/deployments/{settings.service_name}-predictor"
    _await(
        settings,
        lambda cluster: _lacking(cluster.get(path), revision),
        say,
        f"{settings.namespace}/{settings.service_name}",
        "does not serve what was applied",
        settings.start_timeout_seconds + 60 if patience is None else patience,
    )


def await_pulled(
    settings: Settings, daemon_set: str, say: Callable[[str], object], *, patience: float | None = None
) -> None:
    """Wait until all nodes that a DaemonSet is for have its images.

    Args:
        settings: the stack's.
        daemon_set: its name.
        say: is told what is waited for, when that changes.
        patience: seconds; `startTimeoutSeconds` where None.

    Raises:
        pulumi.RunError: they do not in time, or the cluster does not let us look.
    """
    path = f"/apis/apps/v1/namespaces/{settings.namespace}/daemonsets/{daemon_set}"
    _await(
        settings,
        lambda cluster: _unpulled(cluster.get(path)),
        say,
        f"{settings.namespace}/{daemon_set}",
        "is not on all nodes, and what is served stays as it was",
        settings.start_timeout_seconds if patience is None else patience,
        of=lambda pod: str(pod["metadata"]["name"]).startswith(f"{daemon_set}-"),
    )


def _await(
    settings: Settings,
    look: Callable[[Cluster], str | None],
    say: Callable[[str], object],
    name: str,
    fault: str,
    patience: float,
    of: Callable[[JSON], bool] | None = None,
) -> None:
    """Wait until nothing is lacking; `of` says whose pods tell why it is."""
    deadline = time.monotonic() + patience
    try:
        cluster = Cluster.of(settings)
    except InputError as error:
        raise pulumi.RunError(f"{name} is applied; how it goes on is not known:\n{error}") from None
    said = ""
    while True:
        try:
            lacking = look(cluster)
        except ClusterError as error:
            if error.status in {401, 403}:
                raise pulumi.RunError(
                    f"{name} is applied, and this account may not look whether its pods are ready: {error}\n"
                    "  fix: let it get deployments and daemonsets (apps), and list pods and events there; "
                    "or do not wait: modelcar:awaitReady false"
                ) from None
            lacking = str(error)
        if lacking is None:
            return
        if time.monotonic() > deadline:
            because = reasons(settings) if of is None else _pods_say(cluster, settings, of)
            told = "\n".join(f"  {line}" for line in because)
            raise pulumi.RunError(f"{name} {fault}: {lacking}\n{told}")
        if lacking != said:
            say(f"{name}: {lacking}")
            said = lacking
        time.sleep(POLL)


def _pods_say(cluster: Cluster, settings: Settings, of: Callable[[JSON], bool]) -> list[str]:
    try:
        pods = (cluster.get(f"/api/v1/namespaces/{settings.namespace}/pods") or {}).get("items") or []
        waiting = [pod for pod in pods if of(pod) and not is_ready(pod)]
        return [f"{pod['metadata']['name']}: {why(cluster, pod)}" for pod in waiting[:PODS]]
    except ClusterError as error:
        return [f"the cluster does not say why: {error}"]


def _unpulled(daemon_set: JSON | None) -> str | None:
    """Return what a DaemonSet lacks, as `kubectl rollout status` sees it."""
    if daemon_set is None:
        return "it is not there"
    status = daemon_set.get("status") or {}
    if status.get("observedGeneration", 0) < daemon_set["metadata"]["generation"]:
        return "Kubernetes has not taken the change over yet"
    wanted = status.get("desiredNumberScheduled", 0)
    done = min(status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0))
    return None if done >= wanted else f"{done} of {wanted} nodes have it"


def _lacking(deployment: JSON | None, revision: str) -> str | None:
    """Return what a Deployment lacks to have rolled out a revision, as `kubectl rollout status` sees it."""
    if deployment is None:
        return "KServe has made no Deployment yet"
    annotations = deployment["spec"]["template"]["metadata"].get("annotations") or {}
    status, generation = deployment.get("status") or {}, deployment["metadata"]["generation"]
    if annotations.get(REVISION) != revision or status.get("observedGeneration", 0) < generation:
        return "KServe has not taken the change over yet"
    wanted = deployment["spec"].get("replicas", 1)
    updated, ready = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    former = status.get("replicas", 0) - updated
    if updated < wanted:
        return f"{updated} of {wanted} new pods are there"
    if former > 0:
        return f"the new pods are not ready, or former ones not gone yet ({former})"
    if ready < wanted:
        return f"{ready} of {wanted} new pods are ready"
    return None


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
        log = last_log(cluster, pod, CONTAINER, SEARCHED)
        known = why_no_room(cluster, settings, pod) if lacks_gpus(pod) else cause(log)
        if known:
            yield told(known)
        said = shown(log) or _ended_before(cluster, pod)
        if said:
            yield "its log ends:\n  " + "\n  ".join(said)
    if not failing:
        yield from _conditions(cluster, settings)
    serving = [pod["metadata"]["name"] for pod in found if is_ready(pod)]
    if failing and serving:
        yield f"{name} is still served by {', '.join(serving)}, as before"
    elif not found:
        yield f"{name} has no pod"


def told(found: Cause) -> str:
    """Return a cause as `up` tells it."""
    return f"reason: {found.reason}\n  fix: {found.fix}"


def _ended_before(cluster: Cluster, pod: JSON) -> list[str]:
    """Return the last lines of what ended before the server, where that has not said anything."""
    ended = [
        box["name"]
        for box in pod["status"].get("initContainerStatuses") or []
        if (box.get("lastState") or {}).get("terminated") or (box.get("state") or {}).get("terminated")
    ]
    return last_lines(cluster, pod, ended[-1]) if ended else []


def inference_service(cluster: Cluster, settings: Settings) -> JSON | None:
    """Return a model's InferenceService as it is; None where there is none.

    Raises:
        ClusterError: the API server went away, or rights are missing.
    """
    return cluster.get(
        f"/apis/serving.kserve.io/v1beta1/namespaces/{settings.namespace}"
        f"/inferenceservices/{settings.service_name}"
    )


def _conditions(cluster: Cluster, settings: Settings) -> Iterator[str]:
    status = (inference_service(cluster, settings) or {}).get("status") or {}
    for condition in status.get("conditions") or []:
        if condition.get("status") == "False" and condition.get("message"):
            yield f"{condition['type']}: {condition.get('reason', '')} {condition['message']}".strip()
