"""Why a model is not served, in the words of its pods."""

from __future__ import annotations

from typing import Any

import pulumi
import pytest

from components.model_service import REVISION
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


DEPLOYMENT = "/apis/apps/v1/namespaces/models/deployments/m-predictor"


def deployment(revision: str = "new", replicas: int = 2, **status: int) -> dict[str, Any]:
    template = {"metadata": {"annotations": {REVISION: revision}}}
    done = {"observedGeneration": 4, "replicas": replicas, "updatedReplicas": 2, "availableReplicas": 2}
    return {
        "metadata": {"generation": 4},
        "spec": {"replicas": 2, "template": template},
        "status": {**done, **status},
    }


def test_a_rollout_that_is_complete_is_not_waited_for(cluster: FakeCluster) -> None:
    cluster.found[DEPLOYMENT] = deployment()
    said: list[str] = []
    rollout.await_rolled_out(SETTINGS, "new", said.append)
    assert not said


@pytest.mark.parametrize(
    ("found", "lacking"),
    [
        (None, "KServe has made no Deployment yet"),
        (deployment("old"), "KServe has not taken the change over yet"),
        (deployment(observedGeneration=3), "KServe has not taken the change over yet"),
        (deployment(updatedReplicas=1), "1 of 2 new pods are there"),
        (deployment(replicas=3), "the new pods are not ready, or former ones not gone yet (1)"),
        (deployment(availableReplicas=1), "1 of 2 new pods are ready"),
    ],
)
def test_a_rollout_that_is_not_complete_fails_with_what_lacks_and_why(
    cluster: FakeCluster, found: dict[str, Any] | None, lacking: str
) -> None:
    if found:
        cluster.found[DEPLOYMENT] = found
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "403 Forbidden"}}
    states = [{"name": "modelcar-init", "state": waiting}]
    cluster.lists[PODS] = [pod("new", "2026-01-02T00:00:00Z", initContainerStatuses=states)]
    with pytest.raises(pulumi.RunError) as raised:
        rollout.await_rolled_out(SETTINGS, "new", print, patience=0)
    assert str(raised.value) == (
        f"models/m does not serve what was applied: {lacking}\n"
        "  new: modelcar-init: ErrImagePull 403 Forbidden"
    )


def test_what_is_waited_for_is_said_when_it_changes(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = [deployment("old"), deployment("old"), deployment(availableReplicas=0), deployment()]
    monkeypatch.setattr(cluster, "get", lambda _: states.pop(0))
    monkeypatch.setattr("operations.rollout.POLL", 0)
    said: list[str] = []
    rollout.await_rolled_out(SETTINGS, "new", said.append)
    assert said == [
        "models/m: KServe has not taken the change over yet",
        "models/m: 0 of 2 new pods are ready",
    ]


def test_without_the_right_to_look_the_fix_is_named(cluster: FakeCluster) -> None:
    cluster.refusals[DEPLOYMENT] = ClusterError(403, "deployments.apps is forbidden")
    with pytest.raises(pulumi.RunError, match=r"(?s)forbidden.*fix: let it get deployments.*awaitReady"):
        rollout.await_rolled_out(SETTINGS, "new", print)


def test_an_api_server_that_is_gone_for_a_moment_is_waited_for(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = [ClusterError(0, "it does not answer"), deployment()]

    def get(_: str) -> Any:
        found = answers.pop(0)
        if isinstance(found, ClusterError):
            raise found
        return found

    monkeypatch.setattr(cluster, "get", get)
    said: list[str] = []
    rollout.await_rolled_out(SETTINGS, "new", said.append)
    assert said == ["models/m: it does not answer"]
