"""Who may connect to the pods, and what is proven of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.config.network import IngressSettings
from components.engine.options import OWNED
from components.engine.this_stack import MARK
from components.kserve.ingress import IngressPolicy, IngressPolicyArgs
from components.manifests.gitops import manifests
from components.manifests.network import ingress_policy
from local.up import _setting
from operations.validate import validate
from operations.validate_network import CLOSED, OPEN
from operations.validation_report import Line
from tests.unit.fake_cluster import FakeCluster
from tests.unit.mocked_engine import Engine
from tests.unit.test_components_settings import load, problems
from tests.unit.test_operations_gitops import project, settings
from tests.unit.test_operations_validate import CONTROL, cluster, named_control

__all__ = ["cluster", "named_control", "project"]

MODEL = ("192.0.2.7", 8080)


def ingress(**changes: Any) -> IngressSettings:
    found = load(ingress=changes).ingress
    assert found is not None
    return found


def test_without_it_everybody_may_connect() -> None:
    assert load().ingress is None


def test_who_is_named_may_connect_and_nobody_else() -> None:
    spec = ingress_policy("m", ingress(namespaces=["gateway", "apps"], networks=["35.191.0.0/16"]))
    assert spec["podSelector"] == {"matchLabels": {"serving.kserve.io/inferenceservice": "m"}}
    assert spec["policyTypes"] == ["Ingress"], "egress has a policy of its own"
    name = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["gateway", "apps"]}
    sources = [{"namespaceSelector": {"matchExpressions": [name]}}, {"ipBlock": {"cidr": "35.191.0.0/16"}}]
    assert spec["ingress"] == [{"from": sources}]


def test_nobody_at_all_may_be_let_in() -> None:
    # A rule without sources would let everybody in.
    assert ingress_policy("m", ingress())["ingress"] == []


@pytest.mark.parametrize(
    ("value", "key", "fix"),
    [
        ({"networks": ["0.0.0.0/1", "128.0.0.0/1"]}, "modelcar:ingress.networks", "remove modelcar:ingress"),
        ({"networks": ["0.0.0.0/0"]}, "modelcar:ingress.networks[0]", "remove modelcar:ingress"),
        ({"networks": ["10.0.0.1/8"]}, "modelcar:ingress.networks[0]", "ADDRESS/BITS"),
        ({"namespaces": ["Apps"]}, "modelcar:ingress.namespaces[0]", "lower-case"),
        ({"namespaces": "apps"}, "modelcar:ingress.namespaces", ""),
        ({"from": ["apps"]}, "modelcar:ingress.from", ""),
    ],
)
def test_a_wrong_one_is_told(value: dict[str, Any], key: str, fix: str) -> None:
    [found] = problems(ingress=value)
    assert found.key == key
    assert fix in found.fix


def test_knatives_own_pods_have_to_be_let_in() -> None:
    [found] = problems(deploymentMode="Knative", ingress={"namespaces": ["apps"]})
    assert found.key == "modelcar:ingress.namespaces"
    assert "knative-serving" in found.allowed
    load(deploymentMode="Knative", ingress={"namespaces": ["knative-serving", "kourier-system"]})


def test_the_policy_is_a_child_of_its_component() -> None:
    engine = Engine(preview=True)

    def program() -> dict[str, Any]:
        args = IngressPolicyArgs(service="m", namespace="models", settings=ingress())
        return {"name": IngressPolicy("ingress", args).name}

    assert engine.run(program) == {"name": "m-ingress"}
    component, policy = engine.declared
    assert component.type == "modelcar:kserve:IngressPolicy"
    assert policy.parent == component.urn
    annotations = {**OWNED, MARK: "acme/project/stack"}
    assert policy.inputs["metadata"] == {
        "name": "m-ingress",
        "namespace": "models",
        "annotations": annotations,
    }


def test_git_has_it_beside_the_one_for_egress(project: Path) -> None:
    found = manifests(settings(ingress={"namespaces": ["apps"]}), project)
    assert list(found)[:2] == ["networkpolicy.yaml", "networkpolicy-ingress.yaml"]
    document = found["networkpolicy-ingress.yaml"]
    assert document["metadata"]["name"] == "qwen-oci-ingress"
    assert document["spec"] == ingress_policy("qwen-oci", ingress(namespaces=["apps"]))


def test_a_model_says_it_or_the_stack_does() -> None:
    told = {"ingress": {}, "models": [{"name": "a", "ingress": {"namespaces": ["x"]}}, {"name": "b"}]}
    assert _setting(told, "a", "ingress") == {"namespaces": ["x"]}
    assert _setting(told, "b", "ingress") == {}
    assert _setting({}, "qwen", "ingress") is None


# --- what `validate` makes of it --------------------------------------------------------------------


def line(cluster: FakeCluster, *, to_model: str, elsewhere: str = OPEN, **changes: Any) -> Line:
    cluster.lists["/api/v1/namespaces/models/pods"][0]["status"]["podIP"] = MODEL[0]
    cluster.said[CONTROL] = elsewhere
    cluster.said_of[CONTROL, f"{MODEL[0]} {MODEL[1]}"] = to_model
    told = load(namespace="models", serviceName="m", servedModelName="m", ingress=changes)
    found = {line.name: line for line in validate(cluster, told)}
    assert found["egress impossible"].evidence.count(MODEL[0]) == 0, "that is another question"
    return found["ingress as it is set"]


def test_a_stranger_who_cannot_connect_proves_it(cluster: FakeCluster) -> None:
    found = line(cluster, to_model=CLOSED, namespaces=["apps"])
    assert found.passed is True
    assert found.evidence == (
        "192.0.2.7:8080 from beside the pod does not connect, its namespace is not let in"
    )


def test_a_stranger_who_connects_fails(cluster: FakeCluster) -> None:
    found = line(cluster, to_model=OPEN, namespaces=["apps"])
    assert found.passed is False
    assert "enforces no NetworkPolicies" in found.fix


def test_a_stranger_who_connects_to_nothing_proves_nothing(cluster: FakeCluster) -> None:
    found = line(cluster, to_model=CLOSED, elsewhere=CLOSED, namespaces=["apps"])
    assert found.passed is None
    assert "proves nothing" in found.fix


def test_who_is_let_in_has_to_connect(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operations.validate_network.LET_IN", 0.0)
    assert line(cluster, to_model=OPEN, namespaces=["models"]).passed is True
    found = line(cluster, to_model=CLOSED, namespaces=["models"])
    assert found.passed is False
    assert "another NetworkPolicy keeps it out" in found.fix


def test_a_network_may_let_a_new_pod_in_late(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def now_it_is_known(_seconds: float) -> None:
        cluster.said_of[CONTROL, f"{MODEL[0]} {MODEL[1]}"] = OPEN

    monkeypatch.setattr("operations.validate.time.sleep", now_it_is_known)
    assert line(cluster, to_model=CLOSED, namespaces=["models"]).passed is True
