"""`make up` on a cluster, a registry and a builder that are the user's own: here, another checkout's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest

from tests.conftest import Checkout, Platform, write_stack

pytestmark = pytest.mark.extended

#: What the embedded platform offers and a user of another cluster sets by hand.
KEYS = (
    *("kubeconfig", "registry", "registryInsecure", "builder", "architecture", "cpu", "cpuLimit", "memory"),
    *("serverImage", "serverCommand", "serverArgs", "serverEnv", "serverHostPaths"),
)


@pytest.fixture
def other(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    folder = tmp_path_factory.mktemp("other") / "checkout"
    ignored = shutil.ignore_patterns(".local", "__pycache__")
    shutil.copytree(platform.checkout.folder, folder, symlinks=True, ignore=ignored)
    environment = {
        **platform.checkout.environment,
        "MODELCAR_STATE": str(folder / ".local"),
        "BUILDX_CONFIG": platform.shell["BUILDX_CONFIG"],
    }
    config = {key: platform.settings[key] for key in KEYS}
    config |= {
        "platformFile": ".local/local/platform.json",
        "model": "tiny-qwen2",
        "imageName": "own-cluster",
        "namespace": "own-cluster",
        "gpuCount": 0,
    }
    write_stack(folder, "local", config)
    made = Checkout(folder, environment)
    yield made
    made.make("pulumi", "ARGS=destroy --yes --stack local")


def test_make_up_serves_on_it(platform: Platform, other: Checkout) -> None:
    output = other.make("up").stdout
    evidence = json.loads((other.folder / ".local/local/summary.json").read_text())
    assert evidence["models"][0]["answer"]["text"]
    assert evidence["outputs"]["storageUri"].startswith(f"oci://{platform.settings['registry']}/own-cluster@")
    assert "port-forward" in output
    assert "platform:" not in output, "the embedded platform is not started"
    assert "not running" in other.make("status", check=False).stdout
    assert platform.kubectl("-n", "own-cluster", "get", "inferenceservice", "own-cluster", "-o", "name")
