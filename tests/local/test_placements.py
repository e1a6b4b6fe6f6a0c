"""What KServe 0.19's real webhooks and controller do with each place a storage URI can stand in.

The default placement was chosen by these facts: docs/decisions/0001-storage-uri-placement.md.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.conftest import Platform
from tests.local.conftest import STUB_SERVER, push_tiny

SECONDS = 120


@dataclass(frozen=True)
class Scratch:
    """A namespace of the test's own, and a modelcar to serve in it."""

    platform: Platform
    namespace: str
    uri: str

    def server(self, **more: Any) -> dict[str, Any]:
        """Return a custom container that serves /mnt/models."""
        return {
            "name": "kserve-container",
            "image": self.platform.server_image,
            "command": STUB_SERVER,
            "ports": [{"containerPort": 8080}],
            "resources": {
                "requests": {"cpu": "50m", "memory": "32Mi"},
                "limits": {"cpu": "1", "memory": "64Mi"},
            },
            **more,
        }

    def apply(self, predictor: dict[str, Any], **annotations: str) -> str:
        """Apply an InferenceService called `probe`; return what the API server said."""
        metadata = {"name": "probe", "namespace": self.namespace, "annotations": annotations}
        document = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": metadata,
            "spec": {"predictor": predictor},
        }
        return self.platform.kubectl("apply", "-f", "-", text=json.dumps(document), check=False)

    def apply_runtime(self) -> None:
        """Apply a ServingRuntime called `probe`."""
        document = {
            "apiVersion": "serving.kserve.io/v1alpha1",
            "kind": "ServingRuntime",
            "metadata": {"name": "probe", "namespace": self.namespace},
            "spec": {
                "supportedModelFormats": [{"name": "vLLM", "version": "1"}],
                "containers": [self.server()],
            },
        }
        self.platform.kubectl("apply", "-f", "-", text=json.dumps(document))

    def served_pod(self) -> dict[str, Any]:
        """Wait until the service is ready; return its pod."""
        here = ("-n", self.namespace)
        self.platform.kubectl(*here, "wait", "--for=condition=Ready", f"--timeout={SECONDS}s", "isvc/probe")
        pods = json.loads(self.platform.kubectl(*here, "get", "pods", "-o", "json"))["items"]
        found: dict[str, Any] = pods[0]
        return found


@pytest.fixture(scope="module")
def uri(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> str:
    return push_tiny(platform, tmp_path_factory.mktemp("modelcar"))


@pytest.fixture
def scratch(platform: Platform, uri: str) -> Iterator[Scratch]:
    namespace = f"placement-{uuid.uuid4().hex[:8]}"
    platform.kubectl("create", "namespace", namespace)
    yield Scratch(platform, namespace, uri)
    platform.kubectl("delete", "namespace", namespace, "--wait=false")


def assert_modelcar(pod: dict[str, Any], scratch: Scratch) -> None:
    """The pod has what KServe injects for a modelcar, and the model's files are where it says."""
    spec = pod["spec"]
    image = scratch.uri.removeprefix("oci://")
    initial = {box["name"]: box for box in spec["initContainers"]}
    boxes = {box["name"]: box for box in spec["containers"]}
    assert initial["modelcar-init"]["image"] == image
    assert boxes["modelcar"]["image"] == image
    assert boxes["modelcar"]["imagePullPolicy"] == "IfNotPresent", "a digest is pulled once per node"
    assert spec["shareProcessNamespace"] is True
    assert boxes["kserve-container"]["securityContext"]["runAsUser"] == 1010
    listed = scratch.platform.kubectl(
        *("-n", scratch.namespace, "exec", pod["metadata"]["name"], "-c", "kserve-container"),
        *("--", "ls", "/mnt/models/"),
    )
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(listed.split())


def test_the_runbooks_placement_is_refused(scratch: Scratch) -> None:
    model = {"modelFormat": {"name": "vLLM"}, "storageUri": scratch.uri}
    said = scratch.apply({"model": model, "containers": [scratch.server()]})
    assert "exactly one of" in said
    assert "must be specified" in said


def test_model_with_a_serving_runtime_works(scratch: Scratch) -> None:
    scratch.apply_runtime()
    resources = scratch.server()["resources"]
    model = {
        "modelFormat": {"name": "vLLM", "version": "1"},
        "runtime": "probe",
        "storageUri": scratch.uri,
        "resources": resources,
    }
    scratch.apply({"model": model})
    assert_modelcar(scratch.served_pod(), scratch)


def test_a_custom_container_with_the_variable_works(scratch: Scratch) -> None:
    scratch.apply({"containers": [scratch.server(env=[{"name": "STORAGE_URI", "value": scratch.uri}])]})
    assert_modelcar(scratch.served_pod(), scratch)


def test_a_custom_container_with_storage_uris_works(scratch: Scratch) -> None:
    uris = [{"uri": scratch.uri, "mountPath": "/mnt/models"}]
    scratch.apply({"storageUris": uris, "containers": [scratch.server()]})
    assert_modelcar(scratch.served_pod(), scratch)


def test_a_custom_container_without_a_uri_gets_no_model(scratch: Scratch) -> None:
    annotation = {"internal.serving.kserve.io/storage-initializer-sourceuri": scratch.uri}
    server = scratch.server(command=["httpd", "-f", "-p", "8080", "-h", "/bin"])
    scratch.apply({"containers": [server]}, **annotation)
    pod = scratch.served_pod()
    assert "initContainers" not in pod["spec"], "KServe strips the annotation from an InferenceService"
    assert [box["name"] for box in pod["spec"]["containers"]] == ["kserve-container"]


def test_unset_requests_with_a_small_limit_never_become_a_deployment(scratch: Scratch) -> None:
    uris = [{"uri": scratch.uri, "mountPath": "/mnt/models"}]
    server = scratch.server(resources={"limits": {"cpu": "2", "memory": "64Mi"}})
    scratch.apply({"storageUris": uris, "containers": [server]})
    here = ("-n", scratch.namespace)
    scratch.platform.kubectl(
        *here, "wait", "--for=condition=Ready=False", f"--timeout={SECONDS}s", "isvc/probe"
    )
    assert "No resources found" in scratch.platform.kubectl(*here, "get", "deployments", check=False)
