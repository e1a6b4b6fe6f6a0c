"""modelcar:prePull: the nodes that are there have a version before it is served."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pulumi
import pytest

from components.cluster import gpu_nodes, rollout
from components.cluster.access import ClusterError
from components.cluster.guard import ClusterAccess
from components.config.models import load_stack
from components.kserve.pre_pull import PrePull, PrePullArgs
from components.manifests.gitops import manifests
from components.manifests.pre_pull import daemon_set_spec
from components.manifests.service import RESTRICTED, predictor
from components.stack import delivery, translate
from components.stack.preflight import CheckedStack
from modelcar.errors import InputError
from tests.unit.fake_cluster import FakeCluster
from tests.unit.mocked_engine import Engine
from tests.unit.test_components_image_and_service import STORAGE_URI, stack
from tests.unit.test_components_settings import MINIMAL, as_text, load
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
    component, policy, daemon_set = engine.declared
    assert policy.parent == component.urn
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


@pytest.mark.parametrize("restrict", [True, False])
def test_its_pods_connect_to_nothing_and_nothing_to_them(restrict: bool, tmp_path: Path) -> None:
    """They run the images of model and server, and the egress policy is not for pods with their labels."""
    engine = Engine(preview=False)
    declare(engine, egress={"restrict": restrict})
    made = [one.inputs["spec"] for one in engine.declared if one.type.endswith(":NetworkPolicy")]
    model = load(image=STORAGE_URI.removeprefix("oci://"), egress={"restrict": restrict}, prePull=True)
    files = manifests(model, tmp_path)
    made += [files[name]["spec"] for name in files if name == "networkpolicy-pre-pull.yaml"]
    assert len(made) == (2 if restrict else 0), "by the program, and in Git"
    for spec, of in zip(made, (stack(), model), strict=False):
        labels = daemon_set_spec(of, STORAGE_URI)["template"]["metadata"]["labels"]
        assert spec["podSelector"] == {"matchLabels": labels}
        assert sorted(spec["policyTypes"]) == ["Egress", "Ingress"]
        assert spec["egress"] == spec["ingress"] == []
    assert list(files)[-2:] == ["daemonset.yaml", "inferenceservice.yaml"], "after the policies"


def test_what_needs_a_gpu_is_pulled_on_those_nodes() -> None:
    google = load_google(dev())
    spec = daemon_set_spec(google, STORAGE_URI)["template"]["spec"]
    assert spec["nodeSelector"] == {"cloud.google.com/gke-nodepool": "gpu"}
    assert spec["tolerations"][0]["key"] == "nvidia.com/gpu"


def affinity(**changes: Any) -> Any:
    pod = daemon_set_spec(stack(**changes), STORAGE_URI)["template"]["spec"]
    return pod.get("affinity")


def test_on_a_cluster_of_ones_own_no_node_without_gpus_pulls() -> None:
    [required] = affinity()["nodeAffinity"].values()
    asked = [[rule["key"] for rule in term["matchExpressions"]] for term in required["nodeSelectorTerms"]]
    assert ["nvidia.com/gpu.present"] in asked, "any of them"
    assert ["cloud.google.com/gke-accelerator"] in asked
    assert "affinity" not in predictor(stack(), STORAGE_URI), (
        "a model's pods ask for GPUs, and stay as they are"
    )


def test_the_nodes_that_a_model_names_and_models_without_gpus_are_taken_as_they_are() -> None:
    assert affinity(gpuCount=0) is None
    assert affinity(scheduling={"nodeSelector": {"pool": "gpu"}}) is None
    said = affinity(scheduling={"nodeAffinity": [{"key": "pool", "values": ["gpu"]}]})
    [required] = said["nodeAffinity"].values()
    assert required == {
        "nodeSelectorTerms": [{"matchExpressions": [{"key": "pool", "operator": "In", "values": ["gpu"]}]}]
    }


def test_a_pool_that_is_known_later_is_enough() -> None:
    engine = Engine(preview=False)

    def program() -> dict[str, pulumi.Output[Any]]:
        pool = pulumi.Output.from_input("gpu")
        args = PrePullArgs(
            storage_uri=STORAGE_URI,
            server_image=stack().server_image,
            service="tiny",
            namespace="models",
            node_pool=pool,
            access=ClusterAccess(),
        )
        return {"uri": PrePull("pre-pull", args).storage_uri}

    engine.run(program)
    pod = engine.declared[-1].inputs["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"cloud.google.com/gke-nodepool": "gpu"}
    assert "affinity" not in pod
    [waited] = engine.await_pulled.call_args_list
    assert waited.args[0].pool_name == "gpu"


def node(name: str, gpus: int, **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": labels},
        "status": {"capacity": {"cpu": "8", "nvidia.com/gpu": str(gpus)}},
    }


LABELLED = [
    node("operator", 8, **{"nvidia.com/gpu.present": "true"}),
    node("discovery", 1, **{"nvidia.com/gpu.count": "1"}),
    node("gke", 1, **{"cloud.google.com/gke-accelerator": "nvidia-l4"}),
    node("cpu", 0, **{"nvidia.com/gpu.present": "false"}),
]
UNLABELLED = node("bare", 4, **{"nvidia.com/gpu.count": "0", "nvidia.com/gpu.present": "false"})


def test_a_node_with_gpus_that_nothing_would_be_pulled_to_is_told(cluster: FakeCluster) -> None:
    cluster.found[PATH] = daemon_set()
    cluster.lists["/api/v1/nodes"] = LABELLED
    rollout.await_pulled(stack(), "tiny-pre-pull", print)

    cluster.lists["/api/v1/nodes"] = [*LABELLED, UNLABELLED]
    with pytest.raises(InputError) as caught:
        gpu_nodes.require(stack())
    [problem] = caught.value.problems
    assert problem.key == "modelcar:prePull"
    assert problem.value.startswith("true, and no label of bare says that the node has GPUs")
    assert "nodeSelector" in problem.allowed
    assert problem.fix.startswith("kubectl label node bare nvidia.com/gpu.present=true; or ")
    with pytest.raises(pulumi.RunError, match=r"(?s)is not on all nodes.*kubectl label node bare"):
        rollout.await_pulled(stack(), "tiny-pre-pull", print)
    for settings in (stack(gpuCount=0), stack(scheduling={"nodeSelector": {"pool": "gpu"}})):
        gpu_nodes.require(settings)


def test_who_may_not_list_nodes_is_not_stopped(cluster: FakeCluster) -> None:
    cluster.found[PATH] = daemon_set()
    cluster.refusals["/api/v1/nodes"] = ClusterError(403, "nodes is forbidden")
    rollout.await_pulled(stack(), "tiny-pre-pull", print)


def texts(config: dict[str, Any]) -> dict[str, str]:
    return {f"modelcar:{key}": as_text(value) for key, value in config.items()}


@pytest.mark.parametrize("more", [{}, {"delivery": "gitops", "gitops": {"folder": "/apps"}}])
def test_a_preview_tells_it_too(cluster: FakeCluster, tmp_path: Path, more: dict[str, Any]) -> None:
    cluster.lists["/api/v1/nodes"] = [UNLABELLED]
    config = {**MINIMAL, "kubeconfig": "config", "prePull": True, "kserve": {"verify": False}, **more}
    checked = CheckedStack(load_stack(texts(config), tmp_path), {}, {}, {}, reachable=True)
    with pytest.raises(InputError, match=r"modelcar:prePull: true, and no label of bare"):
        asyncio.run(delivery.require_fit(checked, None))
    config["gpuCount"] = 0
    checked = CheckedStack(load_stack(texts(config), tmp_path), {}, {}, {}, reachable=True)
    asyncio.run(delivery.require_fit(checked, None))


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
    monkeypatch.setattr("components.cluster.gpu_nodes.Cluster.of", lambda _: made)
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
