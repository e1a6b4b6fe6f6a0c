"""Why a model is not served, in the words of its pods."""

from __future__ import annotations

from typing import Any

import pulumi
import pytest

from components.cluster import rollout
from components.cluster.access import ClusterError
from components.cluster.pods import pods_of, restarts
from components.manifests.service import AUTOSCALER, REVISION
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
    monkeypatch.setattr("components.cluster.rollout.Cluster.of", lambda _: made)
    return made


def test_a_crash_is_told_with_the_last_words_and_who_serves_still(cluster: FakeCluster) -> None:
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    ended = {"terminated": {"reason": "Error", "exitCode": 3}}
    crashing = {"name": "kserve-container", "state": state, "lastState": ended}
    cluster.lists[PODS] = [
        pod("old", "2026-01-01T00:00:00Z", conditions=READY),
        pod("new", "2026-01-02T00:00:00Z", containerStatuses=[crashing]),
    ]
    cluster.texts["kserve-container"] = "loading\nRuntimeError: nobody knows\n"
    assert rollout.reasons(SETTINGS) == [
        "new: kserve-container: CrashLoopBackOff back-off 10s; kserve-container: Error, exit code 3",
        "its log ends:\n  loading\n  RuntimeError: nobody knows",
        "models/m is still served by old, as before",
    ]


def test_a_known_cause_stands_far_above_the_last_lines(cluster: FakeCluster) -> None:
    """vLLM's last words are "See root cause above", some hundred lines below it."""
    line = (
        "(EngineCore pid=84) ERROR 11-28 16:47:56 [core.py:1195] ValueError: Free memory on device cuda:0 "
        "(10.21/79.11 GiB) on startup is less than desired GPU memory utilization (0.92, 72.78 GiB). "
        "Decrease "
        "GPU memory utilization or reduce GPU memory used by other processes."
    )
    last = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
    cluster.texts["kserve-container"] = "\n".join([line, *["(APIServer pid=1)   File …"] * 300, last])
    ended = {"terminated": {"reason": "Error", "exitCode": 1}}
    crashing = {"name": "kserve-container", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    cluster.lists[PODS] = [
        pod("new", "2026-01-02T00:00:00Z", containerStatuses=[{**crashing, "lastState": ended}])
    ]
    _, reason, log = rollout.reasons(SETTINGS)
    assert reason == (
        "reason: the card is filled by something else: 10.21 of 79.11 GiB are free on cuda:0 when the server "
        "starts, and it is to take 72.78 GiB (0.92 of the card)\n"
        "  fix: end what holds the card (`nvidia-smi` on the node), or lower "
        "modelcar:vllm.gpuMemoryUtilization "
        "to 0.11"
    )
    assert log.endswith(last)


def test_a_server_that_is_tried_again_is_judged_by_the_log_of_the_try_that_failed(
    cluster: FakeCluster,
) -> None:
    ended = {"terminated": {"reason": "Error", "exitCode": 1}}
    again = {"name": "kserve-container", "state": {"running": {}}, "lastState": ended}
    cluster.lists[PODS] = [pod("new", "2026-01-02T00:00:00Z", containerStatuses=[again])]
    cluster.texts["kserve-container"] = "INFO starting\n"
    cluster.texts_before["kserve-container"] = "KeyError: 'getpwuid(): uid not found: 1010'\n"
    _, reason, log = rollout.reasons(SETTINGS)
    assert reason.startswith("reason: user 1010, which the server runs as, has no name in the image")
    assert log == "its log ends:\n  KeyError: 'getpwuid(): uid not found: 1010'"
    cluster.texts_before.clear()  # the node has removed it
    assert rollout.reasons(SETTINGS)[1:] == ["its log ends:\n  INFO starting"]


def test_an_image_that_cannot_be_pulled_is_told(cluster: FakeCluster) -> None:
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "403 Forbidden"}}
    cluster.lists[PODS] = [
        pod(
            "new", "2026-01-02T00:00:00Z", initContainerStatuses=[{"name": "modelcar-init", "state": waiting}]
        )
    ]
    assert rollout.reasons(SETTINGS) == ["new: modelcar-init: ErrImagePull 403 Forbidden"]


NODES = "/api/v1/nodes"
ALL_PODS = "/api/v1/pods"
GPU = "nvidia.com/gpu"


def waiting_pod(gpus: int) -> dict[str, Any]:
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    made = pod("m-predictor-b", "2026-01-02T00:00:00Z", phase="Pending", conditions=[condition])
    made["spec"]["containers"] = [{"name": "kserve-container", "resources": {"limits": {GPU: str(gpus)}}}]
    return made


def node(name: str, gpus: int, capacity: int | None = None) -> dict[str, Any]:
    counts = {"allocatable": {GPU: str(gpus)}, "capacity": {GPU: str(gpus if capacity is None else capacity)}}
    return {"metadata": {"name": name}, "status": counts}


def holder(name: str, node: str, gpus: int, phase: str = "Running") -> dict[str, Any]:
    box = {"name": "a", "resources": {"limits": {GPU: str(gpus)}}}
    return {
        "metadata": {"name": name, "namespace": "models"},
        "spec": {"nodeName": node, "containers": [box]},
        "status": {"phase": phase},
    }


def test_a_pod_that_no_node_takes_is_told_with_what_the_nodes_have(cluster: FakeCluster) -> None:
    cluster.lists[PODS] = [waiting_pod(2)]
    cluster.lists[EVENTS] = [{"reason": "NotTriggerScaleUp", "message": "max node group size reached"}]
    cluster.lists[NODES] = [
        node("gpu-1", 4),
        node("gpu-2", 1),
        {"metadata": {"name": "cpu-1"}, "status": {"allocatable": {"cpu": "4"}}},
    ]
    cluster.lists[ALL_PODS] = [
        holder("train", "gpu-1", 3),
        holder("done", "gpu-1", 1, "Succeeded"),
        {**holder("web", "gpu-2", 0), "spec": {"nodeName": "gpu-2", "containers": [{"name": "web"}]}},
    ]
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    assert rollout.reasons(SETTINGS) == [
        f"m-predictor-b: Unschedulable: {message}; NotTriggerScaleUp: max node group size reached",
        "reason: the pod asks for 2 GPUs (nvidia.com/gpu), and no node has so many free: "
        "gpu-1 has 4, 1 free (held by models/train: 3); gpu-2 has 1, 1 free\n"
        "  fix: end what holds them (`make idle` for a model of this program), or let the pool have one more "
        "node",
    ]


@pytest.mark.parametrize(
    ("nodes", "holders", "asked", "expected"),
    [
        ([], [], 1, "no node offers any\n  fix: a node with cards lacks its device plugin"),
        (
            [node("gpu-1", 1)],
            [],
            2,
            "no node has so many: gpu-1 has 1, 1 free\n  fix: set modelcar:gpuCount to at most 1",
        ),
        (
            [node("gpu-1", 1), node("gpu-2", 2)],
            [holder("train", "gpu-1", 1)],
            1,
            "gpu-2 has them free, and the pod may not go there\n  fix: see which rule of the pod",
        ),
        ([node("gpu-1", 0, capacity=1)], [], 1, "the device plugins find no healthy one: gpu-1 has 0"),
        (
            [node("gpu-1", 1)],
            [holder("m-predictor-a", "gpu-1", 1)],
            1,
            "fix: a former pod of this model holds them: modelcar:rollout Recreate",
        ),
    ],
)
def test_what_to_do_about_gpus_that_are_not_there(
    cluster: FakeCluster,
    nodes: list[dict[str, Any]],
    holders: list[dict[str, Any]],
    asked: int,
    expected: str,
) -> None:
    cluster.lists |= {PODS: [waiting_pod(asked)], NODES: nodes, ALL_PODS: holders}
    assert expected in rollout.reasons(SETTINGS)[1]


def test_without_the_right_to_list_nodes_it_is_told_what_the_pod_asks_for(cluster: FakeCluster) -> None:
    cluster.lists[PODS] = [waiting_pod(1)]
    cluster.refusals[NODES] = ClusterError(403, "nodes is forbidden")
    reason = rollout.reasons(SETTINGS)[1]
    assert "asks for 1 GPU (nvidia.com/gpu)" in reason
    assert "nodes is forbidden" in reason
    assert "fix: kubectl describe nodes" in reason


def test_a_pod_that_the_node_itself_refused_is_told(cluster: FakeCluster) -> None:
    """The device plugin's refusal, as the kubelet writes it into the pod."""
    message = "Allocate failed due to no healthy devices present; cannot allocate unhealthy devices"
    refused = pod("new", "2026-01-02T00:00:00Z", phase="Failed")
    refused["status"] |= {"reason": "UnexpectedAdmissionError", "message": message}
    cluster.lists[PODS] = [refused]
    assert rollout.reasons(SETTINGS) == [f"new: UnexpectedAdmissionError: {message}"]


def test_a_refused_pod_counts_until_a_newer_one_is_ready(cluster: FakeCluster) -> None:
    """A GPU node that starts again refuses the pod that it finds, and the ReplicaSet makes another."""
    refused = pod("old", "2026-01-02T00:00:00Z", phase="Failed")
    refused["status"] |= {"reason": "UnexpectedAdmissionError"}
    made = pod("new", "2026-01-03T00:00:00Z", phase="Pending")
    cluster.lists[PODS] = [made, refused]
    assert rollout.reasons(SETTINGS) == ["new: the pod is Pending", "old: UnexpectedAdmissionError:"]
    made["status"]["conditions"] = READY
    assert [one["metadata"]["name"] for one in pods_of(cluster, "models", "m")] == ["new"]
    former = pod("former", "2026-01-01T00:00:00Z", conditions=READY)
    cluster.lists[PODS] = [former, refused]
    assert rollout.reasons(SETTINGS)[0] == "old: UnexpectedAdmissionError:", "a former pod serves on"


def test_restarts_of_a_pod_without_containers_are_none() -> None:
    assert restarts(pod("refused", "2026-01-02T00:00:00Z", phase="Failed")) == 0


def test_without_a_pod_kserve_is_asked(cluster: FakeCluster) -> None:
    cluster.lists[PODS] = []
    failed = {"type": "PredictorReady", "status": "False", "reason": "Invalid", "message": "memory limit"}
    cluster.found[SERVICE] = {"status": {"conditions": [failed]}}
    assert rollout.reasons(SETTINGS) == ["PredictorReady: Invalid memory limit", "models/m has no pod"]


def test_a_cluster_that_is_gone_is_one_line(cluster: FakeCluster) -> None:
    cluster.refusals[PODS] = ClusterError(0, "it does not answer")
    assert rollout.reasons(SETTINGS) == ["the cluster does not say why: it does not answer"]


DEPLOYMENT = "/apis/apps/v1/namespaces/models/deployments/m-predictor"
TWO = load(namespace="models", serviceName="m", minReplicas=2, maxReplicas=2)
SERVED: dict[str, Any] = {"status": {"conditions": READY}}


def deployment(revision: str = "new", replicas: int = 2, **status: int) -> dict[str, Any]:
    template = {"metadata": {"annotations": {REVISION: revision, AUTOSCALER: "none"}}}
    done = {"observedGeneration": 4, "replicas": replicas, "updatedReplicas": 2, "availableReplicas": 2}
    return {
        "metadata": {"generation": 4},
        "spec": {"replicas": 2, "template": template},
        "status": {**done, **status},
    }


def test_a_rollout_that_is_complete_is_not_waited_for(cluster: FakeCluster) -> None:
    cluster.found |= {DEPLOYMENT: deployment(), SERVICE: SERVED}
    said: list[str] = []
    rollout.await_rolled_out(TWO, "new", said.append)
    assert not said


def test_first_pods_that_are_started_are_told_once(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = iter(["0 of 1 new pods are ready", "0 of 1 new pods are ready", None])
    monkeypatch.setattr(rollout, "lacking", lambda *_: next(missing))
    monkeypatch.setattr(rollout, "start_from_none", lambda *_: True)
    monkeypatch.setattr(rollout, "POLL", 0)
    said: list[str] = []
    rollout.await_rolled_out(TWO, "new", said.append)
    assert [line for line in said if "first pods are started" in line] == said[:1]


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
        rollout.await_rolled_out(TWO, "new", print, patience=0)
    assert str(raised.value) == (
        f"models/m does not serve what was applied: {lacking}\n"
        "  new: modelcar-init: ErrImagePull 403 Forbidden"
    )


def one_after_another(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, path: str, answers: list[Any]
) -> None:
    """Let a path have another answer at each look; the last one stays."""
    found = cluster.get

    def get(asked: str, **query: str) -> Any:
        if asked != path:
            return found(asked, **query)
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, ClusterError):
            raise answer
        return answer

    monkeypatch.setattr(cluster, "get", get)
    monkeypatch.setattr("components.cluster.rollout.POLL", 0)


def test_what_is_waited_for_is_said_when_it_changes(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.found[SERVICE] = SERVED
    states = [deployment("old"), deployment("old"), deployment(availableReplicas=0), deployment()]
    one_after_another(cluster, monkeypatch, DEPLOYMENT, states)
    said: list[str] = []
    rollout.await_rolled_out(TWO, "new", said.append)
    assert said == [
        "models/m: KServe has not taken the change over yet",
        "models/m: 0 of 2 new pods are ready",
    ]


def test_a_former_pod_that_has_answers_to_finish_is_said(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.found[SERVICE] = SERVED
    old = pod("old", "2026-01-01T00:00:00Z")
    old["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z"
    cluster.lists[PODS] = [old]
    states = [deployment(updatedReplicas=0), deployment(updatedReplicas=0), deployment()]
    one_after_another(cluster, monkeypatch, DEPLOYMENT, states)
    said: list[str] = []
    rollout.await_rolled_out(TWO, "new", said.append)
    assert said == [
        "models/m: 0 of 2 new pods are there; old first finishes what it has begun, for at most 330 s"
    ]
    # Without the right to list pods, the rollout is waited for all the same.
    cluster.refusals[PODS] = ClusterError(403, "pods is forbidden")
    states[:] = [deployment(updatedReplicas=0), deployment()]
    said.clear()
    rollout.await_rolled_out(TWO, "new", said.append)
    assert said == ["models/m: 0 of 2 new pods are there"]


class Clock:
    """Time that passes with each look at it."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def test_what_a_former_pod_still_finishes_comes_on_top_of_the_patience(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """… so that a new pod that fails is told of as soon as its own time is over."""
    old = pod("old", "2026-01-01T00:00:00Z")
    old["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z"
    cluster.lists[PODS] = [old]
    cluster.found[SERVICE] = SERVED
    gone = [deployment(updatedReplicas=0)] * 5 + [deployment(availableReplicas=0)]
    one_after_another(cluster, monkeypatch, DEPLOYMENT, gone)
    clock = Clock(10)
    monkeypatch.setattr("components.cluster.rollout.time.monotonic", clock)
    with pytest.raises(pulumi.RunError, match="0 of 2 new pods are ready"):
        rollout.await_rolled_out(TWO, "new", print, patience=50)
    assert 100 <= clock.now <= 130, "five looks at the former pod, and then the patience"


def test_what_never_serves_is_told_before_the_patience_is_over(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"waiting": {"reason": "InvalidImageName", "message": "couldn't parse image name"}}
    new = pod("new", "2026-01-02T00:00:00Z", containerStatuses=[{"name": "kserve-container", "state": state}])
    new["metadata"]["annotations"] = {REVISION: "new"}
    cluster.lists[PODS] = [new]
    cluster.found |= {DEPLOYMENT: deployment(availableReplicas=0), SERVICE: SERVED}
    monkeypatch.setattr("components.cluster.rollout.POLL", 0)
    monkeypatch.setattr("components.cluster.rollout.time.monotonic", clock := Clock(3))
    with pytest.raises(pulumi.RunError) as raised:
        rollout.await_rolled_out(TWO, "new", print)
    assert clock.now < 60
    assert str(raised.value) == (
        "models/m does not serve what was applied: 0 of 2 new pods are ready; to wait longer would not help: "
        "new: kserve-container does not get its image\n"
        "  new: kserve-container: InvalidImageName couldn't parse image name"
    )


def test_without_the_right_to_look_closer_a_rollout_is_waited_for(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.refusals[PODS] = ClusterError(403, "pods is forbidden")
    cluster.found[SERVICE] = SERVED
    one_after_another(
        cluster, monkeypatch, DEPLOYMENT, [*[deployment(availableReplicas=0)] * 9, deployment()]
    )
    monkeypatch.setattr("components.cluster.rollout.time.monotonic", Clock(10))
    rollout.await_rolled_out(TWO, "new", print)


def test_without_the_right_to_look_the_fix_is_named(cluster: FakeCluster) -> None:
    cluster.refusals[DEPLOYMENT] = ClusterError(403, "deployments.apps is forbidden")
    with pytest.raises(pulumi.RunError, match=r"(?s)forbidden.*fix: let it get deployments.*awaitReady"):
        rollout.await_rolled_out(SETTINGS, "new", print)


def test_a_login_that_has_expired_is_no_missing_right(cluster: FakeCluster) -> None:
    cluster.refusals[DEPLOYMENT] = ClusterError(401, "Unauthorized")
    with pytest.raises(
        pulumi.RunError, match=r"(?s)Unauthorized.*fix: log in to the cluster again"
    ) as caught:
        rollout.await_rolled_out(SETTINGS, "new", print)
    assert "let it get" not in str(caught.value)


def test_what_is_known_of_a_pod_is_told_without_the_right_to_read_more(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    server = {"name": "kserve-container", "state": waiting, "restartCount": 3}
    cluster.lists[PODS] = [pod("new", "2026-01-02T00:00:00Z", containerStatuses=[server])]

    def refused(*_: Any, **__: Any) -> str:
        raise ClusterError(403, "pods/log is forbidden")

    monkeypatch.setattr(cluster, "logs", refused)
    assert rollout.reasons(SETTINGS) == [
        "new: kserve-container: CrashLoopBackOff",
        "the cluster does not say more: pods/log is forbidden",
    ]


def test_an_api_server_that_is_gone_for_a_moment_is_waited_for(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.found[SERVICE] = SERVED
    answers = [ClusterError(0, "it does not answer"), deployment()]
    one_after_another(cluster, monkeypatch, DEPLOYMENT, answers)
    said: list[str] = []
    rollout.await_rolled_out(TWO, "new", said.append)
    assert said == ["models/m: it does not answer"]


def test_a_declaration_that_kserve_calls_invalid_is_told(cluster: FakeCluster) -> None:
    """Its conditions stay as they were: only the model's status tells."""
    cluster.lists[PODS] = []
    failure = {"reason": "RuntimeNotRecognized", "message": "Waiting for runtime to become available"}
    model = {"transitionStatus": "InvalidSpec", "lastFailureInfo": failure}
    cluster.found[SERVICE] = {"status": {"conditions": READY, "modelStatus": model}}
    assert rollout.reasons(SETTINGS) == [
        "InvalidSpec: RuntimeNotRecognized Waiting for runtime to become available",
        "models/m has no pod",
    ]


def test_an_image_that_is_no_modelcar_is_told_with_the_fix(cluster: FakeCluster) -> None:
    ended = {"terminated": {"reason": "Error", "exitCode": 1}}
    box = {"name": "modelcar-init", "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended}
    cluster.lists[PODS] = [pod("new", "2026-01-02T00:00:00Z", initContainerStatuses=[box])]
    cluster.texts["modelcar-init"] = (
        "NOK ... Prefetched but modelcar is invalid (/models does not exist or is empty)\n"
    )
    assert "reason: the image has no folder /models, or nothing in it" in rollout.reasons(SETTINGS)[1]
