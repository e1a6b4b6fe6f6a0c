"""Placement imageVolume on the real kubelet, container runtime and KServe."""

from __future__ import annotations

import json
from typing import Any

import pytest

from components.cluster.access import Cluster
from components.config import loading
from modelcar.registry import Target
from operations.validate import validate
from tests import made_images as made
from tests.conftest import Platform
from tests.engine.conftest import Project
from tests.engine.conftest import project as project
from tests.local.client import Client
from tests.local.conftest import until

RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"


@pytest.fixture
def restricted(platform: Platform, project: Project) -> Project:
    """A stack with image volumes in a namespace that refuses every pod that is not `restricted`."""
    platform.kubectl("create", "namespace", project.namespace)
    platform.kubectl("label", "namespace", project.namespace, RESTRICTED)
    project.configure(placement="imageVolume", createNamespace=False)
    return project


def pods(project: Project) -> list[dict[str, Any]]:
    found = json.loads(project.platform.kubectl("-n", project.namespace, "get", "pods", "-o", "json"))
    return [pod for pod in found["items"] if "deletionTimestamp" not in pod["metadata"]]


def in_pod(project: Project, *command: str) -> str:
    [pod] = pods(project)
    where = ("-n", project.namespace, "exec", pod["metadata"]["name"], "-c", "kserve-container", "--")
    return project.platform.kubectl(*where, *command)


def test_one_container_serves_and_passes_the_restricted_standard(restricted: Project) -> None:
    outputs = restricted.up()
    [pod] = pods(restricted)
    assert [box["name"] for box in pod["spec"]["containers"]] == ["kserve-container"]
    assert not pod["spec"].get("initContainers")
    assert not pod["spec"].get("shareProcessNamespace")
    assert "model.safetensors" in in_pod(restricted, "ls", "/mnt/models")
    assert restricted.preview() == []
    settings = loading.load(restricted_config(restricted), restricted.folder)
    lines = {line.name: line for line in validate(Cluster.of(settings), settings, outputs["storageUri"])}
    assert lines["served by digest"].passed
    assert lines["egress impossible"].passed, lines["egress impossible"]

    # An adapter comes, and goes, beside the same image of the model.
    registry, _, name = str(restricted.platform.settings["registry"]).partition("/")
    image = made.image([made.layer(made.SHELL), made.layer(made.ADAPTER)])
    reference = image.push(Target(f"{registry}/{name}", "french", insecure=True))
    restricted.configure(vllm={"loraModules": [{"name": "french", "image": reference}]})
    changed = {step["urn"].rpartition("::")[2] for step in restricted.preview()}
    assert changed == {"tiny"}, "the InferenceService alone"
    assert restricted.up()["storageUri"] == outputs["storageUri"]
    assert "adapter_config.json" in in_pod(restricted, "ls", "/adapters/0/models")
    restricted.configure(vllm=None)
    assert restricted.up()["storageUri"] == outputs["storageUri"]
    assert "adapter" not in json.dumps(pods(restricted)[0]["spec"]["volumes"])


def restricted_config(project: Project) -> dict[str, str]:
    return {
        f"modelcar:{key}": value if isinstance(value, str) else json.dumps(value)
        for key, value in project.config.items()
        if value is not None
    }


def test_a_change_of_the_placement_fails_no_request(project: Project) -> None:
    project.configure(minReplicas=2, maxReplicas=2)
    project.up()
    with Client.of(project) as client:
        until(lambda: client.answered > 5, 60, lambda: str(client.failed))
        for placement, containers in (("imageVolume", 1), ("servingRuntime", 2)):
            project.configure(placement=placement)
            project.up()
            asked = client.answered
            until(lambda: client.answered > asked + 5, 60, lambda: str(client.failed))  # noqa: B023
            assert {len(pod["spec"]["containers"]) for pod in pods(project)} == {containers}
    assert client.failed == [], f"{len(client.failed)} of {client.answered} failed"
    print(f"{client.answered} requests while the placement changed twice, none failed")
