"""What is imported: the provider gives a custom resource without its spec, and the live object beside it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2
from pulumi.runtime.proto import analyzer_pb2
from pulumi_policy import EnforcementLevel
from pulumi_policy.policy import _PolicyAnalyzerServicer
from pulumi_policy.proxy import UNKNOWN_STRING_VALUE

from policy.pack import policies
from policy.rules import RULES
from policy.rules.unseen import UNKNOWN_VALUES
from tests.unit.test_policy_cases import (
    CPU_MEMORY,
    GPU_RESOURCES,
    Res,
    container,
    inference_service,
    model,
    node_pool,
    repository_grant,
    runtime,
    server,
    workload,
)

PACK = [*policies(RULES), *policies([UNKNOWN_VALUES], EnforcementLevel.ADVISORY)]
SERVICE: Any = _PolicyAnalyzerServicer("modelcar", "0.0.1", PACK, EnforcementLevel.MANDATORY)


def struct(properties: dict[str, Any]) -> struct_pb2.Struct:
    return json_format.ParseDict(properties, struct_pb2.Struct())


def before(*resources: Res) -> dict[str, str]:
    """Return the messages of each policy that looks at one resource, out of its inputs."""
    found: dict[str, str] = {}
    for r in resources:
        urn, properties = f"urn:{r.name}", struct(r.properties)
        request = analyzer_pb2.AnalyzeRequest(type=r.type, name=r.name, urn=urn, properties=properties)
        found |= {d.policyName: d.message for d in SERVICE.Analyze(request, None).diagnostics}
    return found


def together(*resources: Res) -> dict[str, str]:
    """Return the messages of each policy that looks at the whole stack, out of its outputs."""
    request = analyzer_pb2.AnalyzeStackRequest()
    for r in resources:
        urn = f"urn:{r.name}"
        request.resources.add(type=r.type, name=r.name, urn=urn, properties=struct(r.properties))
    return {d.policyName: d.message for d in SERVICE.AnalyzeStack(request, None).diagnostics}


def imported(live: Res) -> tuple[Res, Res]:
    """Return inputs and outputs of an object that is imported, as pulumi-kubernetes 4.25 gives them."""
    inputs = {key: copy.deepcopy(live.properties[key]) for key in ("apiVersion", "kind", "metadata")}
    return (
        Res(live.type, live.name, inputs),
        Res(live.type, live.name, {**live.properties, "status": {}}),
    )


@pytest.mark.parametrize(
    ("policy", "live", "found"),
    [
        ("no-model-hub-in-stack", inference_service({"containers": [server(env=[])]}), "HF_HUB_OFFLINE"),
        ("no-model-hub-in-stack", model(runtime="elsewhere", storageUri="hf://org/model"), "hf://org/model"),
        ("no-model-hub-in-stack", runtime(env=[]), "HF_HUB_OFFLINE"),
        (
            "pinned-images-in-stack",
            inference_service({"containers": [server(image="vllm/vllm-openai:latest")]}),
            "image: vllm/vllm-openai:latest",
        ),
        (
            "container-resources-in-stack",
            inference_service({"containers": [server(resources={"requests": CPU_MEMORY})]}),
            "no limits.cpu, limits.memory",
        ),
        (
            "gpu-pod-toleration-in-stack",
            inference_service({"containers": [server(resources=GPU_RESOURCES)]}),
            "none for nvidia.com/gpu",
        ),
    ],
)
def test_what_is_imported_is_judged_as_it_is_in_the_cluster(policy: str, live: Res, found: str) -> None:
    inputs, outputs = imported(live)
    assert before(inputs) == {}
    assert found in together(outputs)[policy]


def test_a_live_object_that_breaks_no_rule_passes() -> None:
    inputs, outputs = imported(inference_service({"containers": [server()]}))
    assert before(inputs) == {}
    assert together(outputs) == {}


def test_what_the_program_declares_is_judged_once_before_it_is_made() -> None:
    declared = inference_service({"containers": [server(env=[])]})
    assert "no-model-hub" in before(declared)
    assert together(declared) == {}


def test_what_is_declared_needs_no_outputs() -> None:
    """As a component of an object's type, which has none."""
    declared = runtime()
    assert before(declared) == {}
    assert together(Res(declared.type, declared.name, {})) == {}


@pytest.mark.parametrize("live", [model(), runtime(), workload("Deployment", {"containers": [container()]})])
def test_an_object_whose_spec_nobody_can_see_is_refused_in_words(live: Res) -> None:
    inputs, _ = imported(live)
    assert before(inputs) == {}
    message = together(inputs)["judged-objects-in-stack"]
    assert "cannot be judged: neither declared nor read from the cluster" in message
    assert "fix: run it again where the cluster answers" in message


@pytest.mark.parametrize(
    ("resource", "path"),
    [
        (node_pool(serviceAccount=UNKNOWN_STRING_VALUE), "nodeConfig.serviceAccount"),
        (repository_grant(UNKNOWN_STRING_VALUE), "member"),
        (
            workload("Pod", {"containers": [container(image=UNKNOWN_STRING_VALUE)]}),
            "spec.containers[0].image",
        ),
        (model(storageUri=UNKNOWN_STRING_VALUE), "spec.predictor.model.storageUri"),
    ],
)
def test_what_a_preview_does_not_know_is_told_and_not_refused(resource: Res, path: str) -> None:
    request = analyzer_pb2.AnalyzeRequest(
        type=resource.type, name=resource.name, properties=struct(resource.properties)
    )
    (told,) = SERVICE.Analyze(request, None).diagnostics
    assert told.enforcementLevel == analyzer_pb2.ADVISORY
    assert f"{path}: not known in this preview" in told.message


def test_what_is_known_is_not_told() -> None:
    assert before(node_pool(), model(), repository_grant("serviceAccount:a@b.c")) == {}
