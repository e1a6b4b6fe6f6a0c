"""The operations on a served model: validation line by line, and scale to zero and back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from components.manifests.service import CONTAINER
from local.pki import NODE
from operations import monitoring
from tests import gpus_in_name
from tests.conftest import Platform
from tests.unit.test_components_settings import load

LINES = [
    "served by digest",
    "told to stay offline",
    "answers a prompt",
    "log without a hub",
    "egress denied by policy",
    "egress impossible",
]
POLICY = ("-n", "kserve-demo", "networkpolicy", "qwen-oci-egress")
PODS = ("-n", "kserve-demo", "get", "pods", "-o", "name")


@pytest.fixture(scope="module")
def served(platform: Platform) -> Platform:
    platform.checkout.make("up")
    return platform


def validate(platform: Platform) -> dict[str, Any]:
    """Run `make validate` and return its report; its exit status has to say the same."""
    run = platform.checkout.make("validate", STACK="local", ARGS="--json", check=False)
    found: dict[str, Any] = json.loads(run.stdout)
    assert (run.returncode == 0) == found["passed"], run.stderr
    return found


def failed(report: dict[str, Any]) -> dict[str, str]:
    return {line["name"]: line["evidence"] for line in report["lines"] if not line["passed"]}


def test_a_served_model_passes_and_cannot_reach_a_hub(served: Platform) -> None:
    report = validate(served)
    assert [line["name"] for line in report["lines"]] == LINES
    assert not failed(report)
    [egress] = [line["evidence"] for line in report["lines"] if line["name"] == "egress impossible"]
    assert "from the pod does not connect, from beside it connects" in egress
    assert "modelcar-validate-control" not in served.kubectl(*PODS)


def test_the_server_has_the_metrics_that_scaling_alerts_and_dashboard_ask_for(served: Platform) -> None:
    pod = served.kubectl(*PODS).split()[0]
    ask = ("exec", pod, "-c", CONTAINER, "--", "wget", "-qO-", "http://127.0.0.1:8080/metrics")
    said = served.kubectl("-n", "kserve-demo", *ask)
    there = set(re.findall(r"^(vllm:\w+)\{", said, re.MULTILINE))
    assert {f"vllm:{name}" for name in monitoring.metrics(load())} <= there


def test_without_the_policy_it_fails_with_what_connects(served: Platform) -> None:
    document = json.loads(served.kubectl("get", *POLICY, "-o", "json"))
    served.kubectl("delete", *POLICY)
    try:
        found = failed(validate(served))
    finally:
        metadata = {key: document["metadata"][key] for key in ("name", "namespace")}
        served.kubectl("apply", "-f", "-", text=json.dumps({**document, "metadata": metadata}))
    assert list(found) == ["egress denied by policy", "egress impossible"]
    assert "from the pod connects" in found["egress impossible"]


@pytest.fixture
def gpu(platform: Platform) -> Iterator[None]:
    gpus_in_name.give(platform, 1)
    yield
    gpus_in_name.take(platform)


@pytest.mark.extended
@pytest.mark.usefixtures("gpu")
def test_idle_leaves_no_pod_and_wake_serves_again(served: Platform) -> None:
    file = served.checkout.folder / "Pulumi.local.yaml"
    committed = file.read_bytes()
    idle = served.checkout.make("idle", STACK="local")
    assert "pods of the model: none" in idle.stdout
    assert f"GPU nodes: {NODE}" in idle.stdout
    gone = ("wait", "--for=delete", "pod", "--all", "--timeout=60s")  # the last one takes its leave
    served.kubectl("-n", "kserve-demo", *gone, check=False)
    assert served.kubectl(*PODS) == ""
    replicas = ("-n", "kserve-demo", "get", "deployments", "-o", "jsonpath={.items[*].spec.replicas}")
    assert served.kubectl(*replicas) == "0"
    assert yaml.safe_load(file.read_text())["config"]["modelcar:idle"] is True
    report = validate(served)
    told = "InferenceService kserve-demo/qwen-oci has no pod, as the stack says (modelcar:idle)"
    assert failed(report) == {"served": told}
    outputs = served.checkout.make("pulumi", ARGS="stack output idleCost --json --stack local").stdout
    assert "storage of about 0.0 GB a version" in outputs

    served.checkout.make("wake", STACK="local")
    assert file.read_bytes() == committed
    assert not failed(validate(served))


@pytest.mark.extended
def test_the_runbook_passes_from_its_first_step_to_its_last(served: Platform) -> None:
    file = served.checkout.folder / "Pulumi.local.yaml"
    committed = file.read_bytes()
    said = served.checkout.make("runbook", ARGS="--with keda,argocd").stdout
    assert file.read_bytes() == committed, "a walk through the runbook leaves the checkout clean"
    lines = [line for line in said.splitlines() if line.startswith(("PASS", "FAIL"))]
    assert [line.split()[:2] for line in lines] == [["PASS", str(number)] for number in range(1, 9)]
    print(said)
    assert "as predicted" in lines[3]
    assert "from the pod does not connect, from beside it connects" in lines[4]
