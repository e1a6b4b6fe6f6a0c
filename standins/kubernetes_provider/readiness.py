"""When an object counts as ready, by kind.

The official provider's `pulumi.com/waitFor` looks at the object alone, as `kubectl wait` does. That is not
enough for a KServe InferenceService (read in KServe v0.19.0):

- `status.observedGeneration` is the generation of the *Deployment* (or Knative Service) that KServe made,
  not of the InferenceService (`PropagateRawStatus`), so it must not be compared with
  `metadata.generation`: it may stay behind for ever, or be ahead.
- Ready stays True from the old revision until KServe has changed the Deployment and the Deployment's
  controller has seen that; when the new spec is invalid (no such runtime), it stays True for good, and
  only `status.modelStatus.transitionStatus: InvalidSpec` tells.

So an InferenceService counts as ready when its conditions hold, KServe has taken the new spec over into
the workload it owns, and that workload's rollout is complete.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from standins.kubernetes_provider.cluster import Cluster, UnknownKindError
from standins.kubernetes_provider.conditions import Requirement
from standins.kubernetes_provider.differences import group_of
from standins.kubernetes_provider.watching import Followed, Verdict, Watcher

KSERVE_GROUP = "serving.kserve.io"
INFERENCE_SERVICE_LABEL = "serving.kserve.io/inferenceservice"
LOCAL_MODEL_LABEL = "internal.serving.kserve.io/localmodel"
# Not all changes of an InferenceService change its workload (minReplicas may only change the autoscaler).
# Where none is seen for these seconds after the change, KServe is taken to have nothing to do.
SETTLE_SECONDS = 10.0
_BAD_TRANSITIONS = ("InvalidSpec", "BlockedByFailedLoad")

# Kinds that the official provider waits for and the stand-in does not.
NOT_AWAITED = frozenset(
    {
        ("", "Pod"),
        ("", "PersistentVolumeClaim"),
        ("", "ReplicationController"),
        ("", "Service"),
        ("apps", "DaemonSet"),
        ("apps", "ReplicaSet"),
        ("apps", "StatefulSet"),
        ("batch", "Job"),
        ("networking.k8s.io", "Ingress"),
    }
)


def is_inference_service(thing: Mapping[str, Any]) -> bool:
    """Say whether an object is a KServe InferenceService."""
    return thing.get("kind") == "InferenceService" and group_of(str(thing["apiVersion"])) == KSERVE_GROUP


@dataclass
class Baseline:
    """An InferenceService's workloads as they were before a change: generation by uid."""

    generations: dict[str, int] = field(default_factory=dict)

    @classmethod
    def take(cls, cluster: Cluster, wanted: Mapping[str, Any]) -> Baseline:
        """Read it; to be called before the change is applied."""
        baseline = cls()
        for path, query, _ in _workloads(cluster, wanted):
            for item in cluster.items(path, **query):
                baseline.generations[item["metadata"]["uid"]] = item["metadata"]["generation"]
        return baseline


def readiness(
    cluster: Cluster,
    watcher: Watcher,
    live: Mapping[str, Any],
    wanted: tuple[Requirement, ...],
    baseline: Baseline | None,
    *,
    changed: bool,
) -> Callable[[], Verdict] | None:
    """Return the check that says when the object is ready; None where there is nothing to wait for.

    live: the object as the apply returned it. baseline: for an InferenceService, from before the apply.
    changed: the apply changed something.
    """
    group, kind = group_of(str(live["apiVersion"])), live["kind"]
    built_in = {("apps", "Deployment"): _deployment, ("", "Namespace"): _namespace}.get((group, kind))
    if not wanted and built_in is None:
        return None
    metadata = live["metadata"]
    path = cluster.resource_type(live["apiVersion"], kind).path(metadata.get("namespace", ""))
    followed = watcher.follow(path, fieldSelector=f"metadata.name={metadata['name']}")

    rollout = None
    if is_inference_service(live) and any(entry.value.lower() == "true" for entry in wanted):
        rollout = _InferenceServiceRollout(cluster, watcher, live, baseline, changed=changed)

    def check() -> Verdict:
        now = followed.items.get(metadata["uid"])
        if now is None:
            return Verdict(False, "it was deleted meanwhile")
        if built_in is not None and not wanted:
            return built_in(now)
        for requirement in wanted:
            verdict = requirement.check(now, ignore_generation=is_inference_service(now))
            if not verdict.done:
                return verdict
        return rollout.check(now) if rollout else Verdict(True)

    return check


def _namespace(live: Mapping[str, Any]) -> Verdict:
    phase = (live.get("status") or {}).get("phase")
    return Verdict(phase == "Active", f"the namespace is {phase or 'not there yet'}")


def _deployment(live: Mapping[str, Any]) -> Verdict:
    """Say whether a Deployment's newest revision is fully out (as `kubectl rollout status`)."""
    status, name = live.get("status") or {}, live["metadata"]["name"]
    if status.get("observedGeneration", 0) < live["metadata"]["generation"]:
        return Verdict(False, f"Deployment {name}: the new revision is not looked at yet")
    replicas = live["spec"].get("replicas", 1)
    updated, total = status.get("updatedReplicas", 0), status.get("replicas", 0)
    available = status.get("availableReplicas", 0)
    if updated < replicas:
        return Verdict(False, f"Deployment {name}: {updated} of {replicas} pods are of the new revision")
    if total > updated:
        return Verdict(False, f"Deployment {name}: {total - updated} pods of an older revision still run")
    if available < replicas:
        return Verdict(False, f"Deployment {name}: {available} of {replicas} pods are ready")
    return Verdict(True)


def _knative_service(live: Mapping[str, Any]) -> Verdict:
    status, name = live.get("status") or {}, live["metadata"]["name"]
    if status.get("observedGeneration", 0) < live["metadata"]["generation"]:
        return Verdict(False, f"Knative Service {name}: the new revision is not looked at yet")
    created, ready = status.get("latestCreatedRevisionName"), status.get("latestReadyRevisionName")
    if not created or created != ready:
        return Verdict(False, f"Knative Service {name}: revision {created} is not ready")
    return Verdict(True)


WorkloadCheck = Callable[[Mapping[str, Any]], Verdict]


def _workloads(
    cluster: Cluster, service: Mapping[str, Any]
) -> list[tuple[str, dict[str, str], WorkloadCheck]]:
    """Return where an InferenceService's workloads are, and what says that one is out.

    Each entry is (path, query, check).
    """
    metadata = service["metadata"]
    query = {"labelSelector": f"{INFERENCE_SERVICE_LABEL}={metadata['name']}"}
    places: list[tuple[str, dict[str, str], WorkloadCheck]] = []
    for api_version, kind, check in (
        ("apps/v1", "Deployment", _deployment),
        ("serving.knative.dev/v1", "Service", _knative_service),
    ):
        try:
            resource = cluster.resource_type(api_version, kind)
        except UnknownKindError:
            continue  # a cluster without Knative
        places.append((resource.path(metadata["namespace"]), query, check))
    return places


class _InferenceServiceRollout:
    """Whether KServe has brought the present spec into the workloads, and they run it."""

    def __init__(
        self,
        cluster: Cluster,
        watcher: Watcher,
        live: Mapping[str, Any],
        baseline: Baseline | None,
        *,
        changed: bool,
    ) -> None:
        self._uid = live["metadata"]["uid"]
        self._before = baseline.generations if baseline else {}
        self._settles_at = time.monotonic() + SETTLE_SECONDS if changed else 0.0
        self._followed: list[tuple[Followed, WorkloadCheck]] = [
            (watcher.follow(path, **query), check) for path, query, check in _workloads(cluster, live)
        ]

    def check(self, live: Mapping[str, Any]) -> Verdict:
        model = (live.get("status") or {}).get("modelStatus") or {}
        if model.get("transitionStatus") in _BAD_TRANSITIONS:
            failure = model.get("lastFailureInfo") or {}
            told = " - ".join(str(failure[key]) for key in ("reason", "message") if failure.get(key))
            return Verdict(False, f"the model is {model['transitionStatus']}: {told or 'no reason given'}")
        owned = [
            (item, check)
            for followed, check in self._followed
            for item in followed.items.values()
            if any(owner.get("uid") == self._uid for owner in item["metadata"].get("ownerReferences") or [])
        ]
        if not owned:
            return Verdict(False, "KServe has not made the workload yet")
        missing = _missing_storage_uris(live, [item for item, _ in owned])
        if missing:
            return Verdict(False, f"KServe has not brought {missing} into the workload yet")
        left = self._settles_at - time.monotonic()
        if left > 0 and not any(self._is_newer(item) for item, _ in owned):
            return Verdict(False, "waiting for KServe to take the change over", again_in=left)
        for item, check in owned:
            verdict = check(item)
            if not verdict.done:
                return verdict
        return Verdict(True)

    def _is_newer(self, item: Mapping[str, Any]) -> bool:
        before = self._before.get(item["metadata"]["uid"], 0)
        return bool(before < item["metadata"]["generation"])


def storage_uris(service: Mapping[str, Any]) -> list[str]:
    """Return the storage URIs of an InferenceService's predictor, in every placement KServe knows."""
    predictor = (service.get("spec") or {}).get("predictor") or {}
    uris = [(predictor.get("model") or {}).get("storageUri")]
    uris += [entry.get("uri") for entry in predictor.get("storageUris") or []]
    for container in predictor.get("containers") or []:
        uris += [entry.get("value") for entry in container.get("env") or [] if entry["name"] == "STORAGE_URI"]
    return [uri for uri in uris if uri]


def _missing_storage_uris(service: Mapping[str, Any], owned: list[dict[str, Any]]) -> str:
    """Return a storage URI that no workload carries yet; "" where all are there.

    It stands in an annotation, in an environment variable or, without its scheme, as an image. A model that
    KServe caches on the node is mounted from elsewhere, so nothing can be said about it.
    """
    if LOCAL_MODEL_LABEL in (service["metadata"].get("labels") or {}):
        return ""
    carried = json.dumps([item["spec"] for item in owned], ensure_ascii=False)
    return next((uri for uri in storage_uris(service) if uri.removeprefix("oci://") not in carried), "")
