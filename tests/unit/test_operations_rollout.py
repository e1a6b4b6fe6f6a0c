"""Why a model is not served, in the words of its pods."""

from __future__ import annotations

from typing import Any

import pytest

from operations import rollout
from operations.cluster import ClusterError
from tests.unit.fake_cluster import FakeCluster
from tests.unit.test_components_settings import load

SETTINGS = load(namespace="models", serviceName="m")
PODS = "/api/v1/namespaces/models/pods"
EVENTS = "/api/v1/namespaces/models/events"
SERVICE = "/apis/serving.kserve.io/v1beta1/namespaces/models/inferenceservices/m"
READY = [{"type": "Ready", "status": "True"}]


def pod(name: str, created: str, **status: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "models", "creationTimestamp": created}
    return {"metadata": metadata, "spec": {"containers": []}, "status": {"phase": "Running", **status}}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    made = FakeCluster()
    made.lists[EVENTS] = []
    monkeypatch.setattr("operations.rollout.Cluster.of", lambda _: made)
    return made


def test_a_crash_is_told_with_the_last_words_and_who_serves_still(cluster: FakeCluster) -> None:
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    ended = {"terminated": {"reason": "Error", "exitCode": 3}}
    crashing = {"name": "kserve-container", "state": state, "lastState": ended}
    cluster.lists[PODS] = [
        pod("old", "2026-01-01T00:00:00Z", conditions=READY),
        pod("new", "2026-01-02T00:00:00Z", containerStatuses=[crashing]),
    ]
    cluster.texts["kserve-container"] = "loading\nRuntimeError: CUDA out of memory\n"
    assert rollout.reasons(SETTINGS) == [
        "new: kserve-container: CrashLoopBackOff back-off 10s; kserve-container: Error, exit code 3",
        "its log ends:\n  loading\n  RuntimeError: CUDA out of memory",
        "models/m is still served by old, as before",
    ]


def test_an_image_that_cannot_be_pulled_is_told(cluster: FakeCluster) -> None:
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "403 Forbidden"}}
    cluster.lists[PODS] = [
        pod(
            "new", "2026-01-02T00:00:00Z", initContainerStatuses=[{"name": "modelcar-init", "state": waiting}]
        )
    ]
    assert rollout.reasons(SETTINGS) == ["new: modelcar-init: ErrImagePull 403 Forbidden"]


def test_a_pod_that_no_node_takes_is_told(cluster: FakeCluster) -> None:
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    cluster.lists[PODS] = [pod("new", "2026-01-02T00:00:00Z", phase="Pending", conditions=[condition])]
    cluster.lists[EVENTS] = [{"reason": "NotTriggerScaleUp", "message": "max node group size reached"}]
    assert rollout.reasons(SETTINGS) == [
        f"new: Unschedulable: {message}; NotTriggerScaleUp: max node group size reached"
    ]


def test_without_a_pod_kserve_is_asked(cluster: FakeCluster) -> None:
    cluster.lists[PODS] = []
    failed = {"type": "PredictorReady", "status": "False", "reason": "Invalid", "message": "memory limit"}
    cluster.found[SERVICE] = {"status": {"conditions": [failed]}}
    assert rollout.reasons(SETTINGS) == ["PredictorReady: Invalid memory limit", "models/m has no pod"]


def test_a_cluster_that_is_gone_is_one_line(cluster: FakeCluster) -> None:
    cluster.refusals[PODS] = ClusterError(0, "it does not answer")
    assert rollout.reasons(SETTINGS) == ["the cluster does not say why: it does not answer"]
