"""The report on a served model: each line passed, failed, or not to be found out, with what was seen."""

from __future__ import annotations

from typing import Any

import pytest

from operations.cluster import ClusterError
from operations.validate import CLOSED, CONTROL, OPEN, Line, document, report, validate
from tests.unit.fake_cluster import FakeCluster
from tests.unit.test_components_settings import load

IMAGE = "registry.example/models/m@sha256:" + "a" * 64
SETTINGS = load(namespace="models", serviceName="m", servedModelName="m")
PODS = "/api/v1/namespaces/models/pods"
PROXY = f"{PODS}/m-1:8080/proxy/v1/completions"
POLICIES = "/apis/networking.k8s.io/v1/namespaces/models/networkpolicies"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
READY = [{"type": "Ready", "status": "True"}]


def served(**changes: Any) -> dict[str, Any]:
    env = [{"name": "HF_HUB_OFFLINE", "value": "1"}, {"name": "TRANSFORMERS_OFFLINE", "value": "1"}]
    found: dict[str, Any] = {
        "metadata": {
            "name": "m-1",
            "namespace": "models",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"serving.kserve.io/inferenceservice": "m"},
        },
        "spec": {
            "nodeName": "gpu-1",
            "initContainers": [{"name": "modelcar-init", "image": IMAGE}],
            "containers": [
                {"name": "kserve-container", "image": "vllm", "env": env},
                {"name": "modelcar", "image": IMAGE},
            ],
        },
        "status": {"phase": "Running", "conditions": READY},
    }
    return {**found, **changes}


@pytest.fixture
def cluster() -> FakeCluster:
    """A cluster on which all is as it should be."""
    made = FakeCluster()
    made.lists[PODS] = [served()]
    made.found[PROXY] = {"choices": [{"text": " great"}]}
    made.texts["kserve-container"] = "INFO started\nINFO model /mnt/models\n"
    made.lists[POLICIES] = [
        {
            "metadata": {"name": "m-egress"},
            "spec": {
                "podSelector": {"matchLabels": {"serving.kserve.io/inferenceservice": "m"}},
                "policyTypes": ["Egress"],
            },
        }
    ]
    made.lists[SLICES] = [
        {
            "metadata": {"labels": {"kubernetes.io/service-name": "kubernetes"}},
            "endpoints": [{"addresses": ["192.0.2.1"]}],
            "ports": [{"port": 6443}],
        }
    ]
    made.said = {"m-1": f"{CLOSED}\n", CONTROL: f"{OPEN}\n"}
    made.found[f"{PODS}/{CONTROL}"] = {"status": {"conditions": READY}}
    return made


@pytest.fixture(autouse=True)
def no_leftover(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pod of the control is there as soon as it is made; none is left of a run before."""
    monkeypatch.setattr("operations.cluster.Cluster.remove", lambda self, path, _: self.delete(path))


def lines(cluster: FakeCluster, uri: str | None = f"oci://{IMAGE}") -> dict[str, Line]:
    return {line.name: line for line in validate(cluster, SETTINGS, uri)}


def test_a_model_as_it_should_be_passes_in_each_line(cluster: FakeCluster) -> None:
    found = lines(cluster)
    assert {name: line.passed for name, line in found.items()} == dict.fromkeys(
        [
            "served by digest",
            "told to stay offline",
            "answers a prompt",
            "log without a hub",
            "egress denied by policy",
            "egress impossible",
        ],
        True,
    )
    assert "192.0.2.1:6443 from the pod does not connect, from beside it connects" in (
        found["egress impossible"].evidence
    )
    assert cluster.deleted.count(f"{PODS}/{CONTROL}") == 2, "before, and afterwards"
    assert document(tuple(found.values()))["passed"] is True


def test_the_control_is_no_pod_that_the_policy_selects(cluster: FakeCluster) -> None:
    lines(cluster)
    [(path, body)] = cluster.made
    assert path == PODS
    assert "serving.kserve.io/inferenceservice" not in body["metadata"]["labels"]
    [box] = body["spec"]["containers"]
    assert box["image"] == IMAGE
    assert box["securityContext"]["runAsNonRoot"] is True


def test_another_image_than_the_stacks_fails(cluster: FakeCluster) -> None:
    other = "oci://registry.example/models/m@sha256:" + "b" * 64
    assert lines(cluster, other)["served by digest"].passed is False
    assert lines(cluster, None)["served by digest"].passed is True


def test_a_server_that_may_go_online_fails(cluster: FakeCluster) -> None:
    pod = served()
    pod["spec"]["containers"][0]["env"][0]["value"] = "0"
    cluster.lists[PODS] = [pod]
    found = lines(cluster)["told to stay offline"]
    assert found.passed is False
    assert "HF_HUB_OFFLINE=0" in found.evidence


@pytest.mark.parametrize(
    "line",
    [
        "GET https://huggingface.co/api/models/x",
        "Downloading shards: 10%",
        "Fetching 12 files: 0%",
        "HEAD https://cdn-lfs.hf.co/x",
    ],
)
def test_a_log_that_tells_of_a_hub_fails(cluster: FakeCluster, line: str) -> None:
    cluster.texts["kserve-container"] += line
    found = lines(cluster)["log without a hub"]
    assert found.passed is False
    assert found.evidence == line


def test_a_server_that_does_not_answer_fails(cluster: FakeCluster) -> None:
    cluster.refusals[PROXY] = ClusterError(503, "no endpoints available")
    found = lines(cluster)["answers a prompt"]
    assert found.passed is False
    assert "no endpoints available" in found.evidence
    del cluster.refusals[PROXY]
    cluster.found[PROXY] = {"detail": "Not Found"}
    assert lines(cluster)["answers a prompt"].passed is False


def test_a_policy_for_other_pods_does_not_count(cluster: FakeCluster) -> None:
    cluster.lists[POLICIES][0]["spec"]["podSelector"]["matchLabels"]["other"] = "x"
    found = lines(cluster)["egress denied by policy"]
    assert found.passed is False
    assert "modelcar:egress.restrict true" in found.fix


def test_a_network_that_enforces_no_policies_fails(cluster: FakeCluster) -> None:
    cluster.said["m-1"] = OPEN
    found = lines(cluster)["egress impossible"]
    assert found.passed is False
    assert "Dataplane V2" in found.fix


def test_where_nothing_can_be_reached_nothing_is_proven(cluster: FakeCluster) -> None:
    cluster.said[CONTROL] = CLOSED
    found = lines(cluster)["egress impossible"]
    assert found.passed is None
    assert "proves nothing" in found.fix
    assert next(report((found,))).startswith("????")
    assert document((found,))["passed"] is False


def test_a_model_that_is_not_served_is_one_line_with_the_reason(cluster: FakeCluster) -> None:
    waiting = {"name": "kserve-container", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    cluster.lists[PODS] = [served(status={"phase": "Running", "containerStatuses": [waiting]})]
    cluster.texts["kserve-container"] = "RuntimeError: no GPU\n"
    [found] = validate(cluster, SETTINGS)
    assert found.passed is False
    assert "CrashLoopBackOff" in found.evidence
    assert "RuntimeError: no GPU" in found.evidence
    cluster.lists[PODS] = []
    [found] = validate(cluster, SETTINGS)
    assert "has no pod" in found.evidence
