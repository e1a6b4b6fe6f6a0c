"""What keeps a new pod from serving and cannot mend itself, so that `up` need not wait any longer.

Only what neither a retry of the kubelet nor an autoscaler mends is here. What might be over in a moment has
to last before it counts. Everything else is waited for until the patience is at its end: a driver that is
being installed, a right to pull that was granted a minute ago, a card that somebody else still holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from components.cluster.access import JSON, Cluster, ClusterError
from components.cluster.failures import SEARCHED, cause
from components.cluster.pods import boxes, is_ready, last_log, pods_of, why
from components.cluster.pull_failures import pull_cause
from components.cluster.room import asks, lacks_gpus, rooms_of
from components.cluster.workload import declares, inference_service, path
from components.config.model_spec import ModelSpec
from components.manifests.service import REVISION

#: Starts of a container that failed with the same known line before it counts.
RESTARTS = 3
#: Words of events by which an autoscaler says that a node comes: cluster-autoscaler, Karpenter.
NODE_COMES = frozenset({"TriggeredScaleUp", "Nominated", "TriggeredNodeProvisioning"})


@dataclass(frozen=True)
class Fault:
    """what: the fault, the same as long as it lasts. after: seconds that it has to last before it counts."""

    what: str
    after: float = 0


#: What a pod says of its image, and how long. A tag or digest may come a little later than the pod, by a
#: mirror or another repository's copy; a refused login is not here, as rights take minutes to be known.
_IMAGES = (
    (re.compile(r"InvalidImageName"), 0.0),
    (re.compile(r"ErrImageNeverPull"), 0.0),
    (re.compile(r"no match for platform in manifest"), 30.0),
    (re.compile(r"(?:ErrImagePull|ImagePullBackOff).*(?:: not found\b|manifest unknown)"), 180.0),
)
#: Why no pod is made: rules that look at nothing but the pod. A webhook may refuse because it is busy, and a
#: quota gets free.
_REFUSED = re.compile(r"violates PodSecurity|ValidatingAdmissionPolicy '[^']*' with binding '[^']*' denied")


class Patience:
    """Tells when there is nothing left to wait for."""

    def __init__(self, settings: ModelSpec, revision: str, clock: Callable[[], float]) -> None:
        """settings, revision: what is waited for. clock: seconds, as `time.monotonic`."""
        self._settings, self._revision, self._clock = settings, revision, clock
        self._since: dict[str, float] = {}
        self._restarts: dict[str, int] | None = None

    def ended(self, cluster: Cluster) -> str | None:
        """Return what will not mend itself; None as long as waiting may help.

        Raises:
            ClusterError: the API server went away, or rights are missing.
        """
        now, settings = self._clock(), self._settings
        pods = pods_of(cluster, settings.namespace, settings.service_name)
        if self._restarts is None:
            # What failed before this run may have been mended since: it gets one start more.
            self._restarts = {_key(pod, box): _restarts(box) for pod in pods for box in boxes(pod)}
        found = {
            fault.what: fault.after
            for fault in faults(cluster, settings, self._revision, pods, self._restarts)
        }
        self._since = {what: self._since.get(what, now) for what in found}
        return next((what for what, after in found.items() if now - self._since[what] >= after), None)


def faults(
    cluster: Cluster, settings: ModelSpec, revision: str, pods: Iterable[JSON], began: Mapping[str, int]
) -> Iterator[Fault]:
    """Yield what is wrong with the pods of a revision and does not mend itself.

    Args:
        pods: of the model. began: restarts of their containers when the wait began.

    Raises:
        ClusterError: the API server went away, or rights are missing.
    """
    for pod in pods:
        declared = (pod["metadata"].get("annotations") or {}).get(REVISION)
        if declared == revision and not is_ready(pod):
            yield from _of_pod(cluster, settings, pod, began)
    if settings.deployment_mode == "Standard":
        yield from _of_deployment(cluster.get(path(settings)), revision)
    service = inference_service(cluster, settings)
    if service is None:
        yield Fault("somebody deleted the InferenceService; `pulumi up --refresh` makes it anew", 5)
    model = ((service or {}).get("status") or {}).get("modelStatus") or {}
    if model.get("transitionStatus") == "InvalidSpec":  # of a former declaration at first
        told = (model.get("lastFailureInfo") or {}).get("message") or "it does not say why"
        yield Fault(f"KServe calls the declaration invalid: {told}", 60)


def _of_pod(cluster: Cluster, settings: ModelSpec, pod: JSON, began: Mapping[str, int]) -> Iterator[Fault]:
    name = pod["metadata"]["name"]
    for box in boxes(pod):
        failed_again = RESTARTS <= _restarts(box) > began.get(_key(pod, box), -1)
        if failed_again and "running" not in (box.get("state") or {}):
            log = last_log(cluster, pod, box["name"], SEARCHED)
            known = cause(log) or pull_cause(log)
            if known and known.final:
                yield Fault(f"{name}: {box['name']} ends each time in the same way")
        told = _waits_for_image(cluster, pod, box)
        for pattern, seconds in _IMAGES:
            if pattern.search(told):
                yield Fault(f"{name}: {box['name']} does not get its image", seconds)
                break
    if lacks_gpus(pod) and not settings.pool_name:
        yield from _too_many_gpus(cluster, pod)


def _waits_for_image(cluster: Cluster, pod: JSON, box: JSON) -> str:
    """Return what a container says that has no image yet; what it said before it got one does not count."""
    waiting = (box.get("state") or {}).get("waiting") or {}
    told = f"{waiting.get('reason')} {waiting.get('message', '')}"
    # Kubelets before 1.32 leave the cause out while they wait for the next try; their events have it.
    pauses = waiting.get("reason") == "ImagePullBackOff" and "ErrImagePull" not in told
    return f"{told}: {why(cluster, pod)}" if pauses else told


def _key(pod: JSON, box: JSON) -> str:
    return f"{pod['metadata']['name']}/{box['name']}"


def _restarts(box: JSON) -> int:
    return int(box.get("restartCount", 0))


def _too_many_gpus(cluster: Cluster, pod: JSON) -> Iterator[Fault]:
    """No node has so many GPUs, and no autoscaler has said within two minutes that one comes."""
    metadata, asked = pod["metadata"], asks(pod)
    try:
        most = max((room.allocatable for room in rooms_of(cluster)), default=0)
    except ClusterError:  # the right to list nodes is not needed for a rollout that goes well
        return
    if not most or asked <= most:
        return
    path = f"/api/v1/namespaces/{metadata['namespace']}/events"
    events = cluster.get(path, fieldSelector=f"involvedObject.name={metadata['name']}") or {}
    if not any(event.get("reason") in NODE_COMES for event in events.get("items") or []):
        yield Fault(f"{metadata['name']}: no node has {asked} GPUs, and none is on its way", 120)


def _of_deployment(deployment: JSON | None, revision: str) -> Iterator[Fault]:
    if deployment is None or not declares(deployment, revision):
        return
    for condition in (deployment.get("status") or {}).get("conditions") or []:
        refused = condition["type"] == "ReplicaFailure" and condition["status"] == "True"
        message = str(condition.get("message"))
        if refused and _REFUSED.search(message):
            yield Fault("the cluster's rules refuse the pods", 30)
