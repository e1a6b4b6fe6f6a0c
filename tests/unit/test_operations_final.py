"""When a wait is given up because nothing can mend what is wrong, and when it is not."""

from __future__ import annotations

from typing import Any

import pytest

from components.cluster.access import ClusterError
from components.cluster.final import Patience
from components.manifests.service import REVISION
from tests.unit.fake_cluster import FakeCluster
from tests.unit.test_components_settings import load
from tests.unit.test_google_settings import dev
from tests.unit.test_google_settings import load as load_google
from tests.unit.test_operations_rollout import (
    ALL_PODS,
    DEPLOYMENT,
    EVENTS,
    NODES,
    PODS,
    READY,
    SERVICE,
    deployment,
    node,
    pod,
    waiting_pod,
)

SETTINGS = load(namespace="models", serviceName="m")
TOO_OLD = "RuntimeError: The NVIDIA driver on your system is too old (found version 12080).\n"
FULL = (
    "Free memory on device cuda:0 (1.0/79.1 GiB) on startup is less than desired GPU memory utilization "
    "(0.9, 72.78 GiB)."
)


class World:
    """A cluster in which time passes when a test says so."""

    def __init__(self, settings: Any = SETTINGS) -> None:
        self.cluster, self.now = FakeCluster(), 0.0
        self.cluster.found |= {DEPLOYMENT: deployment(), SERVICE: {"status": {"conditions": READY}}}
        self.cluster.lists |= {PODS: [], EVENTS: [], NODES: [], ALL_PODS: []}
        self.patience = Patience(settings, "new", lambda: self.now)

    def has(self, found: dict[str, Any], revision: str = "new") -> None:
        """Let the model have this pod."""
        found["metadata"]["annotations"] = {REVISION: revision}
        self.cluster.lists[PODS] = [found]

    def ended(self, after: float = 0) -> str | None:
        self.now += after
        return self.patience.ended(self.cluster)


@pytest.fixture
def world() -> World:
    return World()


def crashing(restarts: int, **state: Any) -> dict[str, Any]:
    ended = {"terminated": {"reason": "Error", "exitCode": 1}}
    waiting = state or {"waiting": {"reason": "CrashLoopBackOff"}}
    box = {"name": "kserve-container", "restartCount": restarts, "state": waiting, "lastState": ended}
    return pod("m-predictor-b", "2026-01-02T00:00:00Z", containerStatuses=[box])


def test_a_start_that_fails_for_the_same_known_reason_three_times_is_enough(world: World) -> None:
    world.cluster.texts["kserve-container"] = TOO_OLD
    world.has(crashing(0))
    assert world.ended() is None
    world.has(crashing(2))
    assert world.ended() is None
    world.has(crashing(3, running={}))
    assert world.ended() is None, "it is being tried once more"
    world.has(crashing(3))
    assert world.ended() == "m-predictor-b: kserve-container ends each time in the same way"


@pytest.mark.parametrize("log", [FULL, "RuntimeError: nobody knows", "CUDA error: out of memory"])
def test_what_may_mend_itself_or_is_not_known_is_waited_for(world: World, log: str) -> None:
    world.cluster.texts["kserve-container"] = log
    world.has(crashing(0))
    world.ended()
    world.has(crashing(30))
    assert world.ended(after=3600) is None


def test_a_pod_that_failed_before_this_up_gets_one_start_more(world: World) -> None:
    """Somebody may have given the node a newer driver meanwhile."""
    world.cluster.texts["kserve-container"] = TOO_OLD
    world.has(crashing(7))
    assert world.ended() is None
    assert world.ended(after=300) is None
    world.has(crashing(8))
    assert world.ended() is not None


def test_pods_of_a_former_declaration_do_not_count(world: World) -> None:
    world.cluster.texts["kserve-container"] = TOO_OLD
    world.has(crashing(0), revision="old")
    world.ended()
    world.has(crashing(9), revision="old")
    assert world.ended() is None


def image(reason: str, message: str) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return pod(
        "m-predictor-b",
        "2026-01-02T00:00:00Z",
        initContainerStatuses=[{"name": "modelcar-init", "state": state}],
    )


NOT_FOUND = 'failed to resolve reference "r.example/m@sha256:0": r.example/m@sha256:0: not found'


def test_a_digest_that_no_registry_has_is_waited_for_three_minutes(world: World) -> None:
    """A mirror may have it a little later."""
    world.has(image("ErrImagePull", NOT_FOUND))
    assert world.ended() is None
    world.has(image("ImagePullBackOff", f'Back-off pulling image "m": ErrImagePull: {NOT_FOUND}'))
    assert world.ended(after=100) is None
    world.has(image("ErrImagePull", NOT_FOUND))
    assert world.ended(after=100) == "m-predictor-b: modelcar-init does not get its image"


def test_an_older_kubelet_says_in_its_events_why_it_pauses(world: World) -> None:
    world.cluster.lists[EVENTS] = [{"reason": "Failed", "message": f"ErrImagePull: {NOT_FOUND}"}]
    world.has(image("ImagePullBackOff", 'Back-off pulling image "m"'))
    assert world.ended() is None
    assert world.ended(after=200)


def test_an_image_that_comes_after_all_is_waited_for(world: World) -> None:
    world.cluster.lists[EVENTS] = [{"reason": "Failed", "message": NOT_FOUND}]
    world.has(image("ErrImagePull", NOT_FOUND))
    assert world.ended() is None
    world.has(image("PodInitializing", ""))
    assert world.ended(after=600) is None, "its events still say that it was not found"
    world.has(image("ErrImagePull", NOT_FOUND))
    assert world.ended(after=600) is None, "counted anew"


@pytest.mark.parametrize("message", ["403 Forbidden", "context canceled", "no space left on device"])
def test_a_pull_that_the_kubelet_tries_again_is_waited_for(world: World, message: str) -> None:
    world.has(image("ErrImagePull", message))
    world.ended()
    assert world.ended(after=3600) is None


def test_more_gpus_than_any_node_has_never_come_where_nothing_makes_nodes(world: World) -> None:
    world.cluster.lists[NODES] = [node("gpu-1", 4)]
    world.has(waiting_pod(8))
    assert world.ended() is None
    assert world.ended(after=121) == "m-predictor-b: no node has 8 GPUs, and none is on its way"


@pytest.mark.parametrize(
    ("nodes", "asked", "events"),
    [
        ([node("gpu-1", 4)], 8, [{"reason": "TriggeredScaleUp", "message": "pool 0->1"}]),
        ([node("gpu-1", 4)], 8, [{"reason": "Nominated", "message": "Pod should schedule on: nodeclaim/b"}]),
        ([], 1, []),  # the first node of a pool is on its way
        ([node("gpu-1", 4)], 4, []),  # somebody else's pod holds them
    ],
    ids=["autoscaler", "karpenter", "no node yet", "held"],
)
def test_gpus_that_may_come_are_waited_for(
    world: World, nodes: list[Any], asked: int, events: list[Any]
) -> None:
    world.cluster.lists |= {NODES: nodes, EVENTS: events}
    world.has(waiting_pod(asked))
    world.ended()
    assert world.ended(after=3600) is None


def test_a_pool_of_google_makes_nodes_and_its_size_is_checked_before() -> None:
    world = World(load_google(dev(namespace="models", serviceName="m")))
    world.cluster.lists[NODES] = [node("gpu-1", 1)]
    world.has(waiting_pod(8))
    world.ended()
    assert world.ended(after=3600) is None


def test_without_the_right_to_see_nodes_it_is_waited_for(world: World) -> None:
    world.cluster.refusals[NODES] = ClusterError(403, "forbidden")
    world.has(waiting_pod(8))
    world.ended()
    assert world.ended(after=3600) is None


@pytest.mark.parametrize(
    ("message", "final"),
    [
        ('pods "m-x1" is forbidden: violates PodSecurity "restricted:latest": hostPath volumes', True),
        (
            "pods \"m-x1\" is forbidden: ValidatingAdmissionPolicy 'a' with binding 'b' denied request: no",
            True,
        ),
        ('pods "m-x1" is forbidden: exceeded quota: gpus', False),
        ('admission webhook "mutate.kyverno.svc-fail" denied the request: registry is busy', False),
    ],
)
def test_pods_that_rules_refuse(world: World, message: str, final: bool) -> None:
    condition = {"type": "ReplicaFailure", "status": "True", "message": message}
    world.cluster.found[DEPLOYMENT]["status"]["conditions"] = [condition]
    assert world.ended() is None
    condition["message"] = message.replace("m-x1", "m-x2")
    assert (world.ended(after=31) is not None) is final


def test_an_invalid_declaration_counts_once_kserve_has_had_its_time(world: World) -> None:
    model = {"transitionStatus": "InvalidSpec", "lastFailureInfo": {"message": "no such runtime"}}
    world.cluster.found[SERVICE]["status"]["modelStatus"] = model
    assert world.ended() is None, "of the former declaration, perhaps"
    assert world.ended(after=61) == "KServe calls the declaration invalid: no such runtime"


def test_a_service_that_somebody_deleted_never_comes_back(world: World) -> None:
    del world.cluster.found[SERVICE]
    assert world.ended() is None
    told = world.ended(after=6)
    assert told
    assert "pulumi up --refresh" in told
