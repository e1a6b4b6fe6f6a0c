"""Whether a change of a served model has come to its pods, and why not: for `up` and its error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pulumi

from components.cluster import gpu_nodes
from components.cluster.access import JSON, LOG_IN, POLL, Cluster, ClusterError
from components.cluster.failures import SEARCHED, Cause, cause
from components.cluster.final import Patience
from components.cluster.pods import is_ready, last_log, leaving, pods_of, shown, why
from components.cluster.pull_failures import pull_cause
from components.cluster.room import lacks_gpus, why_no_room
from components.cluster.workload import NEW_PODS, inference_service, lacking, start_from_none
from components.config.model_spec import ModelSpec
from components.manifests import termination
from components.manifests.service import CONTAINER, serving_timeout
from modelcar.errors import InputError

#: Pods that are told of; more would say the same.
PODS = 2
#: Seconds between two looks at why new pods do not come.
LOOK = 5.0


@dataclass(frozen=True)
class Missing:
    """what: is still missing. former: because a former pod first finishes what it has begun."""

    what: str
    former: bool = False


def await_rolled_out(
    settings: ModelSpec, revision: str, say: Callable[[str], object], *, patience: float | None = None
) -> None:
    """Wait until all pods of the stack's InferenceService are of a revision, and ready.

    Pulumi's provider and KServe's own status do not tell (components/cluster/workload.py).

    Args:
        settings: the stack's.
        revision: of the declaration, `components.manifests.service.revision`.
        say: is told what is waited for, when that changes.
        patience: seconds; `components.manifests.service.serving_timeout` where None. The time in which a
            former pod finishes what it has begun comes on top of it.

    Raises:
        pulumi.RunError: they are not in time, or never will be, or the cluster does not let us look.
    """
    patient = Patience(settings, revision, time.monotonic)
    name = f"{settings.namespace}/{settings.service_name}"
    started = False

    def look(cluster: Cluster) -> Missing | None:
        nonlocal started
        missing = lacking(cluster, settings, revision)
        try:
            if missing and start_from_none(cluster, settings) and not started:
                started = True
                say(f"{name}: its first pods are started, which its autoscaler never does")
        except ClusterError as error:
            fix = f"kubectl -n {settings.namespace} scale deployment {settings.service_name}-predictor"
            return Missing(f"{missing}; {error}\n  fix: {fix} --replicas={settings.min_replicas}")
        return _former_ones(cluster, settings, missing)

    _await(
        settings,
        look,
        say,
        name,
        "does not serve what was applied",
        serving_timeout(settings) if patience is None else patience,
        hopeless=patient.ended,
    )


def await_pulled(
    settings: ModelSpec, daemon_set: str, say: Callable[[str], object], *, patience: float | None = None
) -> None:
    """Wait until all nodes that a DaemonSet is for have its images.

    Args:
        settings: the stack's.
        daemon_set: its name.
        say: is told what is waited for, when that changes.
        patience: seconds; `startTimeoutSeconds` where None.

    Raises:
        pulumi.RunError: they do not in time, the cluster does not let us look, or nothing would be pulled to
            a node with GPUs.
    """
    try:
        gpu_nodes.require(settings)
    except InputError as error:
        raise pulumi.RunError(f"{settings.namespace}/{daemon_set} is not on all nodes:\n{error}") from None
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
    settings: ModelSpec,
    look: Callable[[Cluster], Missing | None],
    say: Callable[[str], object],
    name: str,
    fault: str,
    patience: float,
    of: Callable[[JSON], bool] | None = None,
    hopeless: Callable[[Cluster], str | None] = lambda _: None,
) -> None:
    """Wait until nothing is missing; `of` says whose pods tell why it is, `hopeless` what stays so."""
    began = time.monotonic()
    deadline, looked, said = began + patience, began, ""
    try:
        cluster = Cluster.of(settings)
    except InputError as error:
        raise pulumi.RunError(f"{name} is applied; how it goes on is not known:\n{error}") from None
    while True:
        try:
            missing = look(cluster)
        except ClusterError as error:
            if error.status == 401:
                raise pulumi.RunError(
                    f"{name} is applied, and the cluster no longer knows this account: {error}\n"
                    f"  fix: {LOG_IN}, and run it again"
                ) from None
            if error.status == 403:
                raise pulumi.RunError(
                    f"{name} is applied, and this account may not look whether its pods are ready: {error}\n"
                    "  fix: let it get deployments and daemonsets (apps; in Knative mode services of "
                    "serving.knative.dev), and list pods and events there; "
                    "or do not wait: modelcar:awaitReady false"
                ) from None
            missing = Missing(str(error))
        if missing is None:
            return
        now, final = time.monotonic(), None
        if missing.former:
            deadline = max(deadline, min(now, began + termination.patience(settings)) + patience)
        if now - looked >= LOOK:
            final, looked = _tried(hopeless, cluster), now
        if final or now > deadline:
            because = reasons(settings) if of is None else _pods_say(cluster, settings, of)
            told = "\n".join(f"  {line}" for line in because)
            ended = f"; to wait longer would not help: {final}" if final else ""
            raise pulumi.RunError(f"{name} {fault}: {missing.what}{ended}\n{told}")
        if missing.what != said:
            say(f"{name}: {missing.what}")
            said = missing.what
        time.sleep(POLL)


def _tried(hopeless: Callable[[Cluster], str | None], cluster: Cluster) -> str | None:
    try:
        return hopeless(cluster)
    except ClusterError:  # the right to look closer is not needed for a rollout that goes well
        return None


def _pods_say(cluster: Cluster, settings: ModelSpec, of: Callable[[JSON], bool]) -> list[str]:
    try:
        pods = (cluster.get(f"/api/v1/namespaces/{settings.namespace}/pods") or {}).get("items") or []
        waiting = [pod for pod in pods if of(pod) and not is_ready(pod)]
        return [line for pod in waiting[:PODS] for line in _pod_says(pod, why(cluster, pod))]
    except ClusterError as error:
        return [f"the cluster does not say why: {error}"]


def _pod_says(pod: JSON, state: str) -> Iterator[str]:
    yield f"{pod['metadata']['name']}: {state}"
    if known := pull_cause(state):
        yield told(known)


def _unpulled(daemon_set: JSON | None) -> Missing | None:
    """Return what a DaemonSet lacks, as `kubectl rollout status` sees it."""
    if daemon_set is None:
        return Missing("it is not there")
    status = daemon_set.get("status") or {}
    if status.get("observedGeneration", 0) < daemon_set["metadata"]["generation"]:
        return Missing("Kubernetes has not taken the change over yet")
    wanted = status.get("desiredNumberScheduled", 0)
    done = min(status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0))
    return None if done >= wanted else Missing(f"{done} of {wanted} nodes have it")


def _former_ones(cluster: Cluster, settings: ModelSpec, missing: str | None) -> Missing | None:
    """Say that a new pod waits for a former one, which may have answers to finish."""
    if missing is None:
        return None
    if not missing.endswith(NEW_PODS):
        return Missing(missing)
    try:
        names = leaving(cluster, settings.namespace, settings.service_name)
    except ClusterError:  # the right to list pods is not needed for a rollout that goes well
        return Missing(missing)
    if not names:
        return Missing(missing)
    grace = settings.termination.grace_period_seconds
    told = f"{missing}; {', '.join(names)} first finishes what it has begun, for at most {grace} s"
    return Missing(told, former=True)


def reasons(settings: ModelSpec) -> list[str]:
    """Return why the stack's InferenceService is not ready, and whether a former pod still serves.

    Never raises: it explains an error, and must not take its place.
    """
    told: list[str] = []
    try:
        told.extend(_reasons(Cluster.of(settings), settings))  # what came before an error stays
    except (ClusterError, InputError) as error:
        told.append(f"the cluster does not say {'more' if told else 'why'}: {error}")
    return told


def _reasons(cluster: Cluster, settings: ModelSpec) -> Iterator[str]:
    name = f"{settings.namespace}/{settings.service_name}"
    found = pods_of(cluster, settings.namespace, settings.service_name)[::-1]
    failing = [pod for pod in found if not is_ready(pod)]
    for pod in failing[:PODS]:
        state = why(cluster, pod)
        yield f"{pod['metadata']['name']}: {state}"
        log = last_log(cluster, pod, CONTAINER, SEARCHED)
        before = _ended_before(cluster, pod)
        if lacks_gpus(pod):
            known: Cause | None = why_no_room(cluster, settings, pod)
        else:
            known = cause(log) or pull_cause(state) or pull_cause(before)
        if known:
            yield told(known)
        if said := shown(log) or shown(before):
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


def _ended_before(cluster: Cluster, pod: JSON) -> str:
    """Return the end of the log of what ended before the server, where that has not said anything."""
    ended = [
        box["name"]
        for box in pod["status"].get("initContainerStatuses") or []
        if (box.get("lastState") or {}).get("terminated") or (box.get("state") or {}).get("terminated")
    ]
    return last_log(cluster, pod, ended[-1]) if ended else ""


def _conditions(cluster: Cluster, settings: ModelSpec) -> Iterator[str]:
    status = (inference_service(cluster, settings) or {}).get("status") or {}
    for condition in status.get("conditions") or []:
        if condition.get("status") == "False" and condition.get("message"):
            yield f"{condition['type']}: {condition.get('reason', '')} {condition['message']}".strip()
    model = status.get("modelStatus") or {}
    failure = model.get("lastFailureInfo") or {}
    if model.get("transitionStatus") == "InvalidSpec" and failure.get("message"):
        yield f"InvalidSpec: {failure.get('reason', '')} {failure['message']}"
