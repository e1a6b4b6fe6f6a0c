"""The YAML for Git passes the real API server and KServe's webhooks."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.config import loading as stack
from components.manifests.gitops import manifests, to_yaml
from modelcar import locking
from modelcar.tiny_model import make_tiny_model
from tests.conftest import Platform
from tests.engine.conftest import STUB_SERVER
from tests.unit.test_scheduling import SCHEDULING


@pytest.fixture
def namespace(platform: Platform) -> Iterator[str]:
    name = f"gitops-{uuid.uuid4().hex[:8]}"
    platform.kubectl("create", "namespace", name)
    yield name
    platform.kubectl("delete", "namespace", name, "--wait=false")


@pytest.mark.parametrize("placement", ["servingRuntime", "storageUriEnv", "storageUris", "auto"])
def test_the_api_server_takes_it_without_a_warning(
    platform: Platform, namespace: str, tmp_path: Path, placement: str
) -> None:
    make_tiny_model(tmp_path / "weights")
    description = locking.Description(folder="weights")
    locking.lock_model("tiny", description, locking.resolve(description, tmp_path), tmp_path)
    values = {
        "platformFile": str(platform.checkout.folder / ".local/local/platform.json"),
        "gpuCount": "0",
        "model": "tiny",
        "namespace": namespace,
        "placement": placement,
        "pullSecret": "regcred",
        "prePull": "true",
        "scheduling": json.dumps(SCHEDULING),
        "serverCommand": str(STUB_SERVER).replace("'", '"'),
    }
    found = stack.load({f"modelcar:{key}": value for key, value in values.items()}, tmp_path)
    text = "---\n".join(to_yaml(document) for document in manifests(found, tmp_path).values())
    said = platform.kubectl("apply", "--dry-run=server", "-f", "-", text=text, check=False)
    assert "error" not in said.lower(), said
    assert "warning" not in said.lower(), said
    assert said.count("(server dry run)") == len(manifests(found, tmp_path))
