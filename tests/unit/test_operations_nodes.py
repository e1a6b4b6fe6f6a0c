"""What keeps a GPU node, by the autoscaler's rules."""

from __future__ import annotations

import json
from typing import Any

import pytest

from components.cluster.nodes import SAFE, Nodes, holder_of, nodes, report
from operations.__main__ import main
from tests.unit.fake_cluster import FakeCluster, pod
from tests.unit.test_components_models import load as load_models
from tests.unit.test_components_settings import load

BUDGET = {
    "metadata": {"name": "one", "namespace": "other"},
    "spec": {"selector": {"matchLabels": {"app": "x"}}},
    "status": {"disruptionsAllowed": 0},
}
OWNED: dict[str, Any] = {"ownerReferences": [{"kind": "ReplicaSet", "controller": True}]}
LIMITS = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (pod("a", "other", {**OWNED, "labels": {"app": "y"}}), None),
        (pod("a", "other", {"ownerReferences": [{"kind": "DaemonSet", "controller": True}]}), None),
        (pod("a", "other", {"ownerReferences": [{"kind": "Node"}]}), None),
        (pod("a", "other", phase="Succeeded"), None),
        (pod("a", "other", {"annotations": {SAFE: "true"}}), None),
        (pod("a", "other", OWNED, LIMITS), "it uses a GPU"),
        (pod("a", "other", {**OWNED, "annotations": {SAFE: "false"}}), "safe-to-evict: false"),
        (pod("a", "other"), "nobody would make it again"),
        (pod("a", "other", {**OWNED, "labels": {"app": "x"}}), "PodDisruptionBudget one allows no"),
        (pod("a", "elsewhere", {**OWNED, "labels": {"app": "x"}}), None),
        (pod("a", "kube-system", OWNED), "a system pod"),
    ],
)
def test_what_keeps_a_node(found: dict[str, Any], why: str | None) -> None:
    holder = holder_of(found, "gpu-1", [BUDGET])
    assert (holder is None) == (why is None)
    if holder and why:
        assert why in holder.why
        assert holder.fix


def rule(operator: str, *values: str) -> dict[str, Any]:
    return {"key": "app", "operator": operator, **({"values": list(values)} if values else {})}


@pytest.mark.parametrize(
    ("selector", "labels", "held"),
    [
        ({}, {}, True),  # policy/v1: all pods of the namespace
        (None, {"app": "x"}, False),
        ({"matchExpressions": [rule("In", "x", "y")]}, {"app": "y"}, True),
        ({"matchExpressions": [rule("In", "x", "y")]}, {}, False),
        ({"matchExpressions": [rule("NotIn", "x")]}, {}, True),
        ({"matchExpressions": [rule("NotIn", "x")]}, {"app": "x"}, False),
        ({"matchExpressions": [rule("Exists")]}, {"app": "x"}, True),
        ({"matchExpressions": [rule("DoesNotExist")]}, {"app": "x"}, False),
        ({"matchExpressions": [rule("DoesNotExist")]}, {}, True),
        ({"matchLabels": {"app": "x"}, "matchExpressions": [rule("NotIn", "x")]}, {"app": "x"}, False),
        ({"matchLabels": {"app": "x"}, "matchExpressions": [rule("Exists")]}, {"app": "x"}, True),
    ],
)
def test_a_budget_holds_what_its_whole_selector_selects(
    selector: dict[str, Any] | None, labels: dict[str, str], held: bool
) -> None:
    budget = {**BUDGET, "spec": {"selector": selector}}
    found = holder_of(pod("a", "other", {**OWNED, "labels": labels}), "gpu-1", [budget])
    assert bool(found and "PodDisruptionBudget one" in found.why) is held


def gpu_node(name: str, count: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"allocatable": {"nvidia.com/gpu": count}}}


def test_gpu_nodes_and_their_holders_are_told() -> None:
    cluster = FakeCluster()
    cluster.lists["/api/v1/nodes"] = [gpu_node("gpu-1", "1"), gpu_node("gpu-2", "2"), gpu_node("cpu", "0")]
    kept = pod("stray", "other")
    kept["spec"]["nodeName"] = "gpu-2"
    cluster.lists["/api/v1/pods"] = [kept]
    found = nodes(cluster, [load()])
    assert found.gpu_nodes == ("gpu-1", "gpu-2")
    assert [holder.pod for holder in found.holders] == ["other/stray"]
    lines = list(report(found))
    assert lines[0] == "pods of the model: none"
    assert "  gpu-2 is kept by other/stray: nobody would make it again elsewhere" in lines
    assert lines[-1].startswith("nothing keeps gpu-1: the autoscaler removes it")


def test_no_nodes_is_a_short_report() -> None:
    assert list(report(Nodes((), {"m": ()}, ()))) == ["pods of the model: none", "GPU nodes: none"]


def test_of_several_models_each_has_its_pods_and_none_need_be_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster, stack = FakeCluster(), load_models({"name": "chat"}, {"name": "code"})
    monkeypatch.setattr("operations.__main__.stack_of", lambda *_: stack)
    monkeypatch.setattr("operations.__main__.cluster_of", lambda *_: cluster)
    monkeypatch.setattr(
        "components.cluster.nodes.pods_of",
        lambda _, space, service: [pod(f"{service}-1", space)] if service == "chat" else [],
    )
    assert main(["nodes", "--stack", "dev"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "pods of chat: chat-1",
        "pods of code: none",
        "GPU nodes: none",
    ]
    assert main(["nodes", "--stack", "dev", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["pods"], found["models"]) == (["chat-1"], {"chat": ["chat-1"], "code": []})
    assert main(["nodes", "--stack", "dev", "--model", "code"]) == 0
    assert capsys.readouterr().out.startswith("pods of the model: none")
