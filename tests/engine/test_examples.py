"""The examples as they are, by the real CLI. `library` is deployed too: tests/engine/test_package.py."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PROJECT, Platform
from tests.engine.package import ON_THE_PLATFORM, Elsewhere, install

DIGEST = "sha256:" + "a" * 64
SERVER = f"docker.io/vllm/vllm-openai:v0.23.0@{DIGEST}"

Taken = Callable[..., Elsewhere]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("package"))


@pytest.fixture
def project(environment: Path, platform: Platform, tmp_path: Path) -> Elsewhere:
    return Elsewhere(tmp_path, environment, platform)


def preview(project: Elsewhere) -> dict[str, list[dict[str, Any]]]:
    """Return what a preview does and with which inputs, by type."""
    shown = json.loads(project.pulumi("preview", "--json", "--stack", "dev"))
    found: dict[str, list[dict[str, Any]]] = {}
    for step in shown["steps"]:
        state = step["newState"]
        kind = state["type"]
        if kind == "pulumi:pulumi:Stack":
            continue
        found.setdefault(kind, []).append({"op": step["op"], **state})
    return found


def of(found: dict[str, list[dict[str, Any]]], kind: str) -> list[dict[str, Any]]:
    return [inputs["inputs"] for name, made in found.items() if name.endswith(kind) for inputs in made]


def test_an_image_alone_needs_no_cluster(project: Elsewhere) -> None:
    project.variables["KUBECONFIG"] = "/nowhere"
    project.lock("assistant")
    project.take("image-only", {"registry": "registry.example.com/models"})
    found = preview(project)
    assert {kind.partition(":")[0] for kind in found} == {"modelcar", "docker-build"}
    [image] = of(found, "docker-build:index:Image")
    assert re.search(r"name=registry\.example\.com/models/assistant:\S+", json.dumps(image["exports"]))


def test_two_models_share_a_runtime(project: Elsewhere) -> None:
    project.lock("chat", "code")
    config = {"registry": "registry.example.com/models", "serverImage": SERVER}
    project.take("shared-runtime", {**config, "kubeconfig": project.platform.kubeconfig})
    found = preview(project)
    [runtime] = of(found, ":ServingRuntime")
    services = of(found, ":InferenceService")
    models = [service["spec"]["predictor"]["model"] for service in services]
    assert [model["runtime"] for model in models] == [runtime["metadata"]["name"]] * 2
    assert {part for model in models for part in model["args"] if part.startswith("--max-model-len")} == {
        "--max-model-len=16000",
        "--max-model-len=32000",
    }


@pytest.mark.skipif(
    shutil.which("pulumi-resource-gcp") is not None, reason="the official gcp plugin would reach Google"
)
def test_outputs_of_a_programs_own_resources_are_handed_to_components(project: Elsewhere) -> None:
    project.variables["MODELCAR_GCP_STANDIN"] = str(project.folder / "google.json")
    path = project.platform.shell["PATH"]
    project.variables["PATH"] = f"{path}:{PROJECT / 'local/standins/bin'}"
    project.lock("chat")
    # The provider would download KServe's charts, where the cluster is known.
    charts = "KServePlatformArgs("
    config = {"gcp:project": "acme-models", "serverImage": SERVER}
    project.take("own-resources", config, {charts: f"{charts}unread=True, "})
    found = preview(project)
    pools = {"guestAccelerators" in pool["nodeConfig"]: pool for pool in of(found, "nodePool:NodePool")}
    assert pools[True]["nodeConfig"]["guestAccelerators"][0]["type"] == "nvidia-l4"
    assert pools[False]["nodeCount"] >= 1, "KServe runs nowhere else"
    [cluster] = of(found, "container/cluster:Cluster")
    assert cluster["workloadIdentityConfig"], "GKE refuses the pool's GKE_METADATA without"
    assert len(of(found, "helm.sh/v3:Release")) == 3
    [service] = of(found, ":InferenceService")
    assert service["metadata"]["name"] == "chat"
    assert len(of(found, "docker-build:index:Image")) == 1


def test_what_somebody_else_deployed_is_taken_over_as_it_is(project: Elsewhere) -> None:
    platform = project.platform
    place = f"oci://registry.example.com/models/assistant@{DIGEST}"
    config = {"storageUri": place, "serverImage": SERVER, "kubeconfig": platform.kubeconfig}
    platform.kubectl("create", "namespace", "models")
    try:
        # Somebody else: the same objects, by another stack, which nobody has any more.
        others = {'["NetworkPolicy"]': "[]", '["InferenceService", "ServingRuntime"]': "[]"}
        project.take(
            "adopting", config, {**ON_THE_PLATFORM, **others, "access=access,": "await_ready=False,"}
        )
        project.pulumi("up", "--yes", "--skip-preview", "--stack", "dev")
        project.pulumi("stack", "rm", "--force", "--yes", "--stack", "dev")
        for name in ("Pulumi.yaml", "Pulumi.dev.yaml", "__main__.py", ".venv"):
            (project.folder / name).unlink(missing_ok=True)

        project.take("adopting", config)
        found = preview(project)
        operations = {
            kind.rpartition(":")[2]: made[0]["op"] for kind, made in found.items() if "kubernetes:" in kind
        }
        taken = ("InferenceService", "ServingRuntime", "NetworkPolicy")
        assert {kind: operations[kind] for kind in taken} == dict.fromkeys(taken, "import")
        before = platform.kubectl("-n", "models", "get", "inferenceservice", "assistant", "-o", "json")
        project.pulumi("up", "--yes", "--skip-preview", "--stack", "dev")
        after = platform.kubectl("-n", "models", "get", "inferenceservice", "assistant", "-o", "json")
        assert json.loads(after)["spec"] == json.loads(before)["spec"], "nothing of it changed"
        outputs = json.loads(project.pulumi("stack", "output", "--json", "--stack", "dev"))
        assert outputs["serves"] == place
    finally:
        platform.kubectl("delete", "namespace", "models", "--wait=false")


def test_each_example_is_one_screen_and_has_a_test() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    for folder in (PROJECT / "examples").iterdir():
        if (folder / "__main__.py").exists():
            assert len((folder / "__main__.py").read_text().splitlines()) <= 60, folder
        assert folder.name in tests, folder
