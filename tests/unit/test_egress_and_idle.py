"""What the pods may connect to, and what is left while there are none."""

from __future__ import annotations

from typing import Any

import pytest

from components.config.network import EgressSettings
from components.engine.options import OWNED
from components.engine.this_stack import MARK
from components.kserve.egress import EgressPolicy, EgressPolicyArgs
from components.manifests.network import NODE_DNS, egress_policy
from components.manifests.service import predictor, service_annotations
from components.stack.idle import idle_cost
from tests.unit.mocked_engine import Engine
from tests.unit.test_components_settings import load, problems
from tests.unit.test_google_settings import dev
from tests.unit.test_google_settings import load as load_google

CLASS = "serving.kserve.io/autoscalerClass"


def egress(**changes: Any) -> EgressSettings:
    return load(egress=changes).egress


def test_by_default_only_names_are_asked_for() -> None:
    spec = egress_policy("m", egress())
    assert spec["podSelector"] == {"matchLabels": {"serving.kserve.io/inferenceservice": "m"}}
    assert spec["policyTypes"] == ["Egress"]
    [dns] = spec["egress"]
    assert dns["ports"] == [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
    assert [entry["ipBlock"]["cidr"] for entry in dns["to"] if "ipBlock" in entry] == list(NODE_DNS)


def test_nothing_at_all_may_be_allowed() -> None:
    assert egress_policy("m", egress(dns=False))["egress"] == []


def test_what_is_named_is_allowed() -> None:
    rules = [{"cidr": "10.0.0.0/8", "ports": [4317]}, {"cidr": "192.0.2.1/32"}]
    named = egress_policy("m", egress(dns=False, allow=rules))["egress"]
    assert named == [
        {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 4317, "protocol": "TCP"}]},
        {"to": [{"ipBlock": {"cidr": "192.0.2.1/32"}}]},
    ]


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ({"allow": [{"cidr": "0.0.0.0/0"}]}, "modelcar:egress.allow[0].cidr"),
        ({"allow": [{"cidr": "::/0"}]}, "modelcar:egress.allow[0].cidr"),
        ({"allow": [{"cidr": "0.0.0.0/1"}, {"cidr": "128.0.0.0/1"}]}, "modelcar:egress.allow"),
        (
            {"allow": [{"cidr": "::/1", "ports": [443]}, {"cidr": "8000::/1", "ports": [80, 443]}]},
            "modelcar:egress.allow",
        ),
        ({"allow": [{"cidr": "10.0.0.1/8"}]}, "modelcar:egress.allow[0].cidr"),
        ({"allow": [{"cidr": "10.0.0.0/8", "ports": [0]}]}, "modelcar:egress.allow[0].ports[0]"),
        ({"alow": []}, "modelcar:egress.alow"),
        ({"restrict": "perhaps"}, "modelcar:egress.restrict"),
    ],
)
def test_a_wrong_egress_is_told(value: dict[str, Any], key: str) -> None:
    [found] = problems(egress=value)
    assert found.key == key


def test_the_policy_is_a_child_of_its_component() -> None:
    engine = Engine(preview=True)

    def program() -> dict[str, Any]:
        policy = EgressPolicy("egress", EgressPolicyArgs(service="m", namespace="models", settings=egress()))
        return {"name": policy.name}

    assert engine.run(program) == {"name": "m-egress"}
    component, policy = engine.declared
    assert component.type == "modelcar:kserve:EgressPolicy"
    assert policy.parent == component.urn
    annotations = {**OWNED, MARK: "acme/project/stack"}
    assert policy.inputs["metadata"] == {
        "name": "m-egress",
        "namespace": "models",
        "annotations": annotations,
    }


@pytest.mark.parametrize("replicas", [{}, {"minReplicas": 2, "maxReplicas": 5}])
def test_an_idle_model_has_no_pod_and_nothing_that_makes_one(replicas: dict[str, Any]) -> None:
    settings = load(idle=True, **replicas)
    assert predictor(settings, "oci://x")["minReplicas"] == 0
    assert service_annotations(settings)[CLASS] == "none"


def test_knative_scales_to_zero_by_itself() -> None:
    settings = load(idle=True, deploymentMode="Knative")
    assert predictor(settings, "oci://x")["minReplicas"] == 0
    assert CLASS not in service_annotations(settings)


def test_a_model_that_is_awake_is_as_its_replicas_say() -> None:
    settings = load(minReplicas=2, maxReplicas=5)
    assert predictor(settings, "oci://x")["minReplicas"] == 2
    assert CLASS not in service_annotations(settings)


def test_what_is_left_to_be_paid_is_told() -> None:
    assert idle_cost(load(), 10**9) == [
        "localhost:5000/models/qwen2.5-0.5b: storage of about 1.0 GB a version",
        "the cluster: as it is, this stack makes none",
    ]
    lines = idle_cost(load_google(dev()), 10**9)
    assert len(lines) == 3
    assert "GPU nodes: none" in lines[2]
    reserved = {"google.nodes.provisioning": "reservation", "google.nodes.reservation": "r"}
    lines = idle_cost(load_google(dev(**reserved, **{"google.nodes.minNodes": 1})), 10**9)
    assert "GPU nodes: 1 " in lines[2]
    assert lines[3] == "reservation r: billed whether it is used or not"
