"""What is missing until a declaration is served, by KServe's workload."""

from __future__ import annotations

from typing import Any

import pytest

from components.cluster import workload
from components.manifests.service import AUTOSCALER, REVISION, service_annotations
from tests.unit.fake_cluster import FakeCluster
from tests.unit.test_components_settings import load
from tests.unit.test_operations_rollout import DEPLOYMENT, READY, SERVICE, deployment

KNATIVE = load(namespace="models", serviceName="m", deploymentMode="Knative")
KNATIVE_SERVICE = "/apis/serving.knative.dev/v1/namespaces/models/services/m-predictor"


def settings(**changes: Any) -> Any:
    return load(namespace="models", serviceName="m", **changes)


@pytest.fixture
def cluster() -> FakeCluster:
    made = FakeCluster()
    made.found[SERVICE] = {"metadata": {"generation": 7}, "status": {"conditions": READY}}
    return made


def sized(replicas: int) -> dict[str, Any]:
    """A Deployment that has rolled out this many pods."""
    found = deployment()
    found["spec"]["replicas"] = replicas
    found["spec"]["template"] = {"metadata": {"annotations": {REVISION: "new", AUTOSCALER: "none"}}}
    found["status"] |= dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), replicas)
    return found


def scaled_by(found: dict[str, Any], autoscaler: str | None) -> None:
    """Let the pods be made with this annotation of KServe's, or without it."""
    annotations = found["spec"]["template"]["metadata"]["annotations"]
    annotations.pop(AUTOSCALER, None)
    if autoscaler:
        annotations[AUTOSCALER] = autoscaler


def test_a_change_that_leaves_the_deployment_as_it_is_is_served_at_once(cluster: FakeCluster) -> None:
    """KServe writes the Deployment's generation into the InferenceService, which stays behind for ever."""
    cluster.found[SERVICE]["status"]["observedGeneration"] = 1
    cluster.found[DEPLOYMENT] = sized(1)
    assert workload.lacking(cluster, settings(), "new") is None


@pytest.mark.parametrize(
    ("changes", "there", "missing"),
    [
        ({}, 1, None),
        ({"minReplicas": 2, "maxReplicas": 2}, 1, "the Deployment is to have 2 pods, and has 1"),
        ({}, 2, "the Deployment is to have 1 pods, and has 2"),
        ({"minReplicas": 2, "maxReplicas": 4}, 1, "the Deployment is to have 2 pods, and has 1"),
        ({"maxReplicas": 4}, 3, None),
        ({"idle": True}, 1, "the Deployment is to have 0 pods, and has 1"),
        ({"idle": True}, 0, None),
    ],
    ids=str,
)
def test_a_change_of_size_alone_is_waited_for(
    cluster: FakeCluster, changes: dict[str, Any], there: int, missing: str | None
) -> None:
    cluster.found[DEPLOYMENT] = found = sized(there)
    scaled_by(found, service_annotations(settings(**changes)).get(AUTOSCALER))
    assert workload.lacking(cluster, settings(**changes), "new") == missing


PROMETHEUS = {"type": "prometheus", "query": "sum(pending)", "threshold": 5}
KEDA = {"serverAddress": "http://prometheus:9090", "triggers": [PROMETHEUS]}


@pytest.mark.parametrize(
    ("changes", "before", "after"),
    [
        ({"maxReplicas": 2}, "none", None),
        ({}, None, "none"),
        ({"maxReplicas": 2, "autoscaling": KEDA}, None, "external"),
        ({"maxReplicas": 2, "autoscaling": KEDA}, "none", "external"),
        ({"maxReplicas": 2}, "external", None),
    ],
    ids=str,
)
def test_another_autoscaler_makes_new_pods_and_they_are_waited_for(
    cluster: FakeCluster, changes: dict[str, Any], before: str | None, after: str | None
) -> None:
    """KServe copies the annotation to the pods, so that former ones serve while it has not looked yet."""
    cluster.found[DEPLOYMENT] = found = sized(1)
    scaled_by(found, before)
    assert workload.lacking(cluster, settings(**changes), "new") == workload.NOT_TAKEN_OVER
    scaled_by(found, after)
    assert workload.lacking(cluster, settings(**changes), "new") is None


def test_a_kserve_that_hands_no_annotation_to_the_pods_is_not_waited_for(cluster: FakeCluster) -> None:
    cluster.found[DEPLOYMENT] = found = sized(1)
    scaled_by(found, None)
    found["metadata"]["annotations"] = {AUTOSCALER: "none"}
    assert workload.lacking(cluster, settings(), "new") is None


def test_another_way_to_replace_pods_is_waited_for(cluster: FakeCluster) -> None:
    cluster.found[DEPLOYMENT] = found = sized(1)
    found["spec"]["strategy"] = {"type": "RollingUpdate"}
    assert workload.lacking(cluster, settings(rollout="Recreate"), "new") == workload.NOT_TAKEN_OVER
    assert workload.lacking(cluster, settings(rollout="RollingUpdate"), "new") is None
    found["spec"]["strategy"] = {"type": "Recreate"}
    assert workload.lacking(cluster, settings(rollout="Recreate"), "new") is None


def test_pods_of_an_idle_model_have_to_go(cluster: FakeCluster) -> None:
    cluster.found[DEPLOYMENT] = found = sized(0)
    found["status"] |= {"replicas": 1, "updatedReplicas": 1}
    assert workload.lacking(cluster, settings(idle=True), "new") == "1 pods have to go"
    found["status"] |= {"replicas": 0, "updatedReplicas": 0}
    cluster.found[SERVICE] = {"status": {}}
    assert workload.lacking(cluster, settings(idle=True), "new") is None, "nothing is ready, as declared"


@pytest.mark.parametrize(
    ("service", "missing"),
    [
        (None, "the InferenceService is not there"),
        ({"status": {}}, "KServe does not report Ready yet"),
        (
            {"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "IngressNotReady"}]}},
            "KServe does not report Ready yet: IngressNotReady",
        ),
    ],
)
def test_kserve_has_to_report_ready_at_last(
    cluster: FakeCluster, service: dict[str, Any] | None, missing: str
) -> None:
    cluster.found[DEPLOYMENT] = sized(1)
    if service:
        cluster.found[SERVICE] = service
    else:
        del cluster.found[SERVICE]
    assert workload.lacking(cluster, settings(), "new") == missing


def knative_service(revision: str = "new", seen: int = 3, **status: Any) -> dict[str, Any]:
    names = {"latestCreatedRevisionName": "m-predictor-00002", "latestReadyRevisionName": "m-predictor-00002"}
    return {
        "metadata": {"generation": 3},
        "spec": {"template": {"metadata": {"annotations": {REVISION: revision}}}},
        "status": {"observedGeneration": seen, "conditions": READY, **names, **status},
    }


@pytest.mark.parametrize(
    ("found", "missing"),
    [
        (None, "KServe has made no Knative Service yet"),
        (knative_service("old"), "KServe has not taken the change over yet"),
        (knative_service(seen=2), "KServe has not taken the change over yet"),
        (
            knative_service(latestReadyRevisionName="m-predictor-00001"),
            "revision m-predictor-00002 is not ready",
        ),
        (
            knative_service(conditions=[{"type": "Ready", "status": "Unknown", "reason": "RouteMissing"}]),
            "the Knative Service is not ready: RouteMissing",
        ),
        (knative_service(), None),
    ],
)
def test_in_knative_mode_the_newest_revision_has_to_be_ready(
    cluster: FakeCluster, found: dict[str, Any] | None, missing: str | None
) -> None:
    if found:
        cluster.found[KNATIVE_SERVICE] = found
    assert workload.lacking(cluster, KNATIVE, "new") == missing


@pytest.mark.parametrize(
    ("changes", "said", "missing"),
    [
        ({}, {workload.MIN_SCALE: "1"}, None),
        ({}, {workload.MIN_SCALE: "0"}, workload.NOT_TAKEN_OVER),
        ({"idle": True}, {workload.MIN_SCALE: "1"}, workload.NOT_TAKEN_OVER),
        ({"idle": True}, {workload.MIN_SCALE: "0"}, None),
        ({"maxReplicas": 3}, {workload.MIN_SCALE: "1", workload.MAX_SCALE: "1"}, workload.NOT_TAKEN_OVER),
        ({"maxReplicas": 3}, {workload.MIN_SCALE: "1", workload.MAX_SCALE: "3"}, None),
    ],
)
def test_in_knative_mode_a_change_of_size_is_waited_for_until_kserve_has_handed_it_on(
    cluster: FakeCluster, changes: dict[str, Any], said: dict[str, str], missing: str | None
) -> None:
    service = knative_service()
    service["spec"]["template"]["metadata"]["annotations"] |= said
    cluster.found[KNATIVE_SERVICE] = service
    own = load(namespace="models", serviceName="m", deploymentMode="Knative", **changes)
    assert workload.lacking(cluster, own, "new") == missing


def test_a_model_with_an_autoscaler_gets_its_first_pods(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    patched: list[tuple[str, str, Any]] = []

    def request(method: str, path: str, body: Any = None, query: Any = None) -> dict[str, Any]:
        patched.append((method, path, body))
        return {}

    monkeypatch.setattr(cluster, "request", request)
    scaled = settings(minReplicas=2, maxReplicas=4)
    cluster.found[DEPLOYMENT] = found = sized(0)
    found["metadata"]["annotations"] = {"serving.kserve.io/autoscalerClass": "none"}
    assert not workload.start_from_none(cluster, scaled), "KServe would undo it"
    found["metadata"]["annotations"] = {}
    assert workload.start_from_none(cluster, scaled)
    assert patched == [("PATCH", f"{DEPLOYMENT}/scale", {"spec": {"replicas": 2}})]
    from_none = settings(minReplicas=0, maxReplicas=4, autoscaling=KEDA)
    for others in (settings(), settings(idle=True, maxReplicas=4), KNATIVE, from_none):
        assert not workload.start_from_none(cluster, others)
    assert len(patched) == 1, "KEDA may have started a pod meanwhile"
    cluster.found[DEPLOYMENT] = sized(1)
    assert not workload.start_from_none(cluster, scaled)
