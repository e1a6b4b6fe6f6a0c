"""What KServe 0.19's real webhooks and controller do with each place a storage URI can stand in.

The default placement was chosen by these facts: docs/decisions/0001-storage-uri-placement.md.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.conftest import Platform
from tests.local.conftest import SECONDS, Scratch, assert_modelcar, push_tiny


@pytest.fixture(scope="module")
def uri(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> str:
    return push_tiny(platform, tmp_path_factory.mktemp("modelcar"))


@pytest.fixture
def scratch(platform: Platform, uri: str) -> Iterator[Scratch]:
    namespace = f"placement-{uuid.uuid4().hex[:8]}"
    platform.kubectl("create", "namespace", namespace)
    yield Scratch(platform, namespace, uri)
    platform.kubectl("delete", "namespace", namespace, "--wait=false")


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
