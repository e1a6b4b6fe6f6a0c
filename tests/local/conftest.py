"""What the tests on the real cluster share."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelcar import locking
from modelcar.base import read_base
from modelcar.image import modelcar_image
from modelcar.oci_layout import context_of
from modelcar.tiny_model import make_tiny_model
from tests.conftest import PROJECT, Platform

#: Patience for a pod.
SECONDS = 120

#: Waits for the model, as the program's own server does, and serves its files.
STUB_SERVER = [
    "sh",
    "-c",
    "until [ -r /mnt/models/ ] || [ ! -L /mnt/models ]; do sleep 0.2; done; exec httpd -f -p 8080 -h /mnt",
]


def push_tiny(platform: Platform, folder: Path, seed: int = 0) -> str:
    """Build and push a modelcar of the tiny model with buildx alone; return its storage URI."""
    name = f"probe-{folder.name.replace('_', '-')}"
    make_tiny_model(folder / "weights", seed=seed)
    description = locking.Description(folder="weights")
    lock, _ = locking.lock_model(name, description, locking.resolve(description, folder), folder)
    image = modelcar_image(lock, read_base("amd64"))
    registry = str(platform.settings["registry"])
    export = "type=image,push=true,compression=uncompressed,oci-mediatypes=true,registry.insecure=true"
    metadata = folder / "metadata.json"
    subprocess.run(
        [
            *("buildx", "build", "--quiet", "--provenance=false", "--builder", platform.settings["builder"]),
            *("--build-arg", "SOURCE_DATE_EPOCH=0"),
            *("--build-context", f"weights={context_of(locking.layout_path(folder, name), image.digest)}"),
            *("--output", f"{export},name={registry}/probe:{folder.name}"),
            *("--metadata-file", str(metadata), str(PROJECT / "modelcar")),
        ],
        env={**platform.checkout.environment, **platform.shell},
        check=True,
        capture_output=True,
    )
    digest = json.loads(metadata.read_text())["containerimage.digest"]
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    host, path = registry.split("/", 1)
    httpx.get(f"http://{host}/v2/{path}/probe/manifests/{digest}", headers=accept).raise_for_status()
    return f"oci://{registry}/probe@{digest}"


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

    def apply(self, predictor: dict[str, Any], name: str = "probe", **annotations: str) -> str:
        """Apply an InferenceService; return what the API server said."""
        metadata = {"name": name, "namespace": self.namespace, "annotations": annotations}
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


def until(look: Callable[[], bool], seconds: float, what: Callable[[], str]) -> float:
    """Wait until something holds; return how long that took."""
    began = time.monotonic()
    while not look():
        if time.monotonic() - began > seconds:
            pytest.fail(f"not after {seconds:.0f} s: {what()}")
        time.sleep(0.3)
    return time.monotonic() - began
