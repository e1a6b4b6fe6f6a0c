"""The components as a package: for a program that has nothing of this repository."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PROJECT, Platform
from tests.engine.package import ON_THE_PLATFORM, Elsewhere, install, install_alone, run, uv

#: Imports every module but commands, and Google's where pulumi-gcp is not there; prints how many that are.
WALK = """
import importlib, pkgutil, sys
import modelcar_kserve as m

assert not any("gcp" in name for name in sys.modules), "the package alone needs no pulumi-gcp"
for name in m.__all__:
    getattr(m, name)
gcp = importlib.util.find_spec("pulumi_gcp") is not None
for found in pkgutil.walk_packages(m.__path__, "modelcar_kserve."):
    of_google = any(part in found.name for part in ("components.google.", ".google", "provider_google"))
    if not found.name.endswith("__main__") and (gcp or not of_google or ".config." in found.name):
        importlib.import_module(found.name)
print(m.__file__, len([name for name in sys.modules if name.startswith("modelcar_kserve.")]), gcp)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("package"))


def test_it_can_be_imported_beside_folders_of_the_same_names(environment: Path, tmp_path: Path) -> None:
    for name in ("components", "modelcar", "operations"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('somebody else')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{WALK}"
    path, count, gcp = run(environment / "bin/python", "-c", code).split()
    assert str(environment) in path
    assert int(count) > 60, "every module was imported"
    assert gcp == "True"


def test_its_command_works_in_a_folder_of_somebody_else(environment: Path, tmp_path: Path) -> None:
    command = environment / "bin/modelcar-kserve"
    assert run(command, "--help").startswith("usage: modelcar-kserve ")
    assert run(command, "lock", "--help").rstrip().endswith("  modelcar-kserve lock my-model")
    script = run(command, "completion", "bash")
    run("bash", "-c", f"{script}\ncomplete -p modelcar-kserve")
    run(command, "tiny", "weights", cwd=tmp_path)
    digest = run(command, "lock", "tiny", "--folder", "weights", cwd=tmp_path).splitlines()[-1]
    assert run(command, "digest", "tiny", cwd=tmp_path).strip() == digest
    assert (tmp_path / "modelcar/models/tiny/model.lock").exists()

    context = Path(run(command, "options", "tiny", "h.io/tiny", cwd=tmp_path).splitlines()[-1])
    assert (context / "Dockerfile").is_file()
    assert (context / ".dockerignore").is_file(), "or the build would be sent all weights"
    shutil.rmtree(tmp_path / "modelcar/data")
    refused = subprocess.run(
        [str(command), "verify", "tiny"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "fix: modelcar-kserve fetch tiny" in refused.stderr, "what a message says can be typed here"


def test_it_needs_no_cloud(tmp_path: Path) -> None:
    environment = install_alone(tmp_path)
    path, count, gcp = run(environment / "bin/python", "-c", WALK).split()
    assert str(environment) in path
    assert int(count) > 60
    assert gcp == "False"
    said = run(
        environment / "bin/python",
        "-c",
        "try:\n    import modelcar_kserve.google\nexcept ImportError as error:\n    print(error)",
    )
    assert "pip install modelcar-kserve[google]" in said
    installed = run(uv(), "pip", "list", "--quiet", "--format=json", "--python", environment / "bin/python")
    names = {row["name"] for row in json.loads(installed)}
    assert not {"psutil", "cryptography", "pulumi-gcp", "pytest"} & names


@pytest.mark.extended
def test_the_oldest_versions_of_its_ranges_do(tmp_path: Path) -> None:
    oldest = tmp_path / "oldest.txt"
    command = ("pip", "compile", "--no-config", "--quiet", "--extra", "google", "--no-header")
    run(uv(), *command, "--resolution", "lowest-direct", PROJECT / "pyproject.toml", "--output-file", oldest)
    environment = install_alone(tmp_path, "--requirements", str(oldest))
    path, _, gcp = run(environment / "bin/python", "-c", WALK).split()
    assert str(environment) in path
    assert gcp == "True"
    version = "import importlib.metadata as found; print(found.version('pulumi-kubernetes'))"
    assert run(environment / "bin/python", "-c", version).strip() == "4.25.0"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "m.SchedulingSettings(node_selecter={})",
            "SchedulingSettings.node_selecter: unknown key",
        ),
        (
            "m.VllmServer(image='vllm/vllm-openai:v0.23.0')",
            "VllmServer.image: 'vllm/vllm-openai:v0.23.0': names an image by tag",
        ),
        ("m.ServerResources(gpus=99)", "ServerResources.gpus: 99"),
    ],
)
def test_what_is_wrong_is_told_by_name(environment: Path, code: str, said: str) -> None:
    program = f"import modelcar_kserve as m\ntry: {code}\nexcept m.InputError as e: print(e)"
    found = run(environment / "bin/python", "-c", program)
    assert said in found
    assert "allowed: " in found
    assert "fix: " in found


def test_a_program_of_its_own_serves_a_model(environment: Path, platform: Platform, tmp_path: Path) -> None:
    assistant = Elsewhere(tmp_path, environment, platform)
    (tmp_path / "components").mkdir()
    (tmp_path / "components/__init__.py").write_text("raise RuntimeError('somebody else')")
    assistant.lock("assistant")
    builder = platform.settings["builder"]
    own = 'registry=config.require("registry")'
    config = {
        "registry": platform.settings["registry"],
        "serverImage": platform.server_image,
        "kubeconfig": platform.kubeconfig,
    }
    changes = {**ON_THE_PLATFORM, own: f"{own}, insecure=True, builder={builder!r}"}
    assistant.take("library", config, changes)
    assistant.pulumi("config", "set", "serverImage", "vllm/vllm-openai:latest", "--stack", "dev")
    refused = assistant.pulumi("preview", "--stack", "dev", check=False)
    assert "VllmServer.image: 'vllm/vllm-openai:latest': names an image by tag" in refused
    assert "Traceback" not in refused
    assistant.pulumi("config", "set", "serverImage", platform.server_image, "--stack", "dev")
    try:
        shown = assistant.pulumi("preview", "--json", "--stack", "dev")
        assistant.pulumi("up", "--yes", "--skip-preview", "--stack", "dev")
        outputs: dict[str, Any] = json.loads(assistant.pulumi("stack", "output", "--json"))
        assert outputs["digest"] in shown, "a preview knows it"
        client = json.loads(platform.kubectl("-n", "assistant", "get", "configmap", "client", "-o", "json"))
        assert client["data"]["endpoint"] == "http://assistant-predictor.assistant.svc.cluster.local"
        pods = json.loads(platform.kubectl("-n", "assistant", "get", "pods", "-o", "json"))["items"]
        assert any(outputs["digest"] in json.dumps(pod["spec"]) for pod in pods)
        again = json.loads(assistant.pulumi("preview", "--json", "--stack", "dev"))
        assert again["changeSummary"].keys() <= {"same", "read"}
    finally:
        assistant.pulumi("destroy", "--yes", "--stack", "dev")
