"""modelcar:prePull: the nodes that are there have a version before it is served."""

from __future__ import annotations

from typing import Any

import pulumi
import pytest

from components.cluster import rollout
from components.cluster.access import ClusterError
from components.kserve.pre_pull import PrePull
from components.manifests.pre_pull import daemon_set_spec
from components.manifests.service import RESTRICTED
from components.stack import translate
from tests.unit.fake_cluster import FakeCluster
from tests.unit.mocked_engine import Engine
from tests.unit.test_components_image_and_service import STORAGE_URI, stack
from tests.unit.test_google_settings import dev
from tests.unit.test_google_settings import load as load_google

PATH = "/apis/apps/v1/namespaces/models/daemonsets/tiny-pre-pull"


def declare(engine: Engine, **changes: Any) -> dict[str, Any]:
    def program() -> dict[str, pulumi.Output[Any]]:
        uri = pulumi.Output.from_input(STORAGE_URI)
        settings = stack(prePull=True, **changes)
        args = translate.pre_pull(settings, uri, "puller", translate.access(settings, None))
        made = PrePull("pre-pull", args)
        return {"uri": made.storage_uri}

    return engine.run(program)


@pytest.mark.parametrize("preview", [True, False], ids=["preview", "up"])
def test_both_images_are_pulled_and_the_modelcar_stays_in_use(preview: bool) -> None:
    engine = Engine(preview)
    assert declare(engine) == {"uri": STORAGE_URI}
    component, daemon_set = engine.declared
    assert component.type == "modelcar:kserve:PrePull"
    assert daemon_set.parent == component.urn
    pod = daemon_set.inputs["spec"]["template"]["spec"]
    [server], [keeper] = pod["initContainers"], pod["containers"]
    assert server["image"] == stack().server_image
    assert keeper["image"] == STORAGE_URI.removeprefix("oci://")
    assert pod["serviceAccountName"] == "puller"
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    for box in (server, keeper):
        assert box["securityContext"] == RESTRICTED
        assert set(box["resources"]) == {"requests", "limits"}
    assert engine.await_pulled.called is not preview


def test_what_needs_a_gpu_is_pulled_on_those_nodes() -> None:
    google = load_google(dev())
    spec = daemon_set_spec(google, STORAGE_URI)["template"]["spec"]
    assert spec["nodeSelector"] == {"cloud.google.com/gke-nodepool": "gpu"}
    assert spec["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_nobody_waits_where_the_stack_says_so() -> None:
    engine = Engine(preview=False)
    declare(engine, awaitReady=False)
    assert not engine.await_pulled.called


def daemon_set(**status: int) -> dict[str, Any]:
    done = {"observedGeneration": 2, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2}
    return {"metadata": {"generation": 2}, "status": {**done, "numberAvailable": 2, **status}}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    made = FakeCluster()
    monkeypatch.setattr("components.cluster.rollout.Cluster.of", lambda _: made)
    return made


@pytest.mark.parametrize(
    "found", [daemon_set(), daemon_set(desiredNumberScheduled=0, numberAvailable=0, updatedNumberScheduled=0)]
)
def test_nodes_that_have_it_and_pools_without_a_node_are_done(
    cluster: FakeCluster, found: dict[str, Any]
) -> None:
    cluster.found[PATH] = found
    said: list[str] = []
    rollout.await_pulled(stack(), "tiny-pre-pull", said.append)
    assert not said


@pytest.mark.parametrize(
    ("found", "lacking"),
    [
        (None, "it is not there"),
        (daemon_set(observedGeneration=1), "Kubernetes has not taken the change over yet"),
        (daemon_set(numberAvailable=1), "1 of 2 nodes have it"),
        (daemon_set(updatedNumberScheduled=0), "0 of 2 nodes have it"),
    ],
)
def test_a_node_that_does_not_get_it_fails_up_and_says_why(
    cluster: FakeCluster, found: dict[str, Any] | None, lacking: str
) -> None:
    if found:
        cluster.found[PATH] = found
    state = {"waiting": {"reason": "ErrImagePull", "message": "403 Forbidden"}}
    cluster.lists["/api/v1/namespaces/models/events"] = []
    cluster.lists["/api/v1/namespaces/models/pods"] = [
        {
            "metadata": {"name": name, "namespace": "models"},
            "spec": {},
            "status": {"containerStatuses": [{"name": "modelcar", "state": state}]},
        }
        for name in ("tiny-pre-pull-1", "another")
    ]
    with pytest.raises(pulumi.RunError) as raised:
        rollout.await_pulled(stack(), "tiny-pre-pull", print, patience=0)
    assert str(raised.value) == (
        f"models/tiny-pre-pull is not on all nodes, and what is served stays as it was: {lacking}\n"
        "  tiny-pre-pull-1: modelcar: ErrImagePull 403 Forbidden"
    )


def test_an_api_server_that_goes_in_the_middle_is_said(cluster: FakeCluster) -> None:
    cluster.refusals[PATH] = ClusterError(0, "it does not answer")
    cluster.refusals["/api/v1/namespaces/models/pods"] = ClusterError(0, "it does not answer")
    with pytest.raises(pulumi.RunError, match="does not say why: it does not answer"):
        rollout.await_pulled(stack(), "tiny-pre-pull", print, patience=0)
