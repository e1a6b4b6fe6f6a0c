"""The components as a package: for a program that has nothing of this repository."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelcar.tiny_model import make_tiny_model
from tests.conftest import PROJECT, Platform
from tests.engine.conftest import STUB_SERVER
from tests.engine.package import install, run


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("package"))


def test_it_can_be_imported_beside_folders_of_the_same_names(environment: Path, tmp_path: Path) -> None:
    for name in ("components", "modelcar", "operations"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('somebody else')")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import modelcar_kserve as m; print(m.__file__)\n"
        "import pkgutil, importlib\n"
        "for found in pkgutil.walk_packages(m.__path__, 'modelcar_kserve.'):\n"
        "    if not found.name.endswith('__main__'): importlib.import_module(found.name)\n"
        "print(len([n for n in sys.modules if n.startswith('modelcar_kserve.')]))"
    )
    said = run(environment / "bin/python", "-c", code).split()
    assert str(environment) in said[0]
    assert int(said[1]) > 60, "every module was imported"


def test_what_is_wrong_is_told_by_key(environment: Path) -> None:
    code = "import modelcar_kserve as m\ntry: m.load_model({'cpus': 1})\nexcept m.InputError as e: print(e)"
    said = run(environment / "bin/python", "-c", code)
    assert "modelcar:cpus: unknown key" in said
    assert "modelcar:registry: not set" in said


def test_a_program_of_its_own_serves_a_model(environment: Path, platform: Platform, tmp_path: Path) -> None:
    folder = tmp_path / "assistant"
    folder.mkdir()
    for part in ("Pulumi.yaml", "__main__.py"):
        (folder / part).write_text((PROJECT / "examples/library" / part).read_text())
    (folder / ".venv").symlink_to(environment)
    (folder / "standins").symlink_to(PROJECT / "standins")
    (folder / "components").mkdir()
    (folder / "components/__init__.py").write_text("raise RuntimeError('somebody else')")
    make_tiny_model(folder / "weights")
    lock = (environment / "bin/python", "-m", "modelcar_kserve", "lock", "assistant", "--folder", "weights")
    subprocess.run([str(part) for part in lock], cwd=folder, check=True, capture_output=True)

    served = {
        "registryInsecure": True,
        "builder": platform.settings["builder"],
        "kubeconfig": platform.kubeconfig,
        "serverCommand": STUB_SERVER,
        "runtime": "custom",
        "gpuCount": 0,
        "cpu": "100m",
        "memory": "64Mi",
        "sharedMemory": "16Mi",
        "startTimeoutSeconds": 120,
    }
    config = {
        "registry": platform.settings["registry"],
        "serverImage": platform.server_image,
        "kubeconfig": platform.kubeconfig,
        "settings": json.dumps(served),
    }
    document = {"config": {f"assistant:{key}": value for key, value in config.items()}}
    (folder / "Pulumi.dev.yaml").write_text(yaml.safe_dump(document))

    def pulumi(*arguments: str) -> str:
        result = subprocess.run(
            ["pulumi", *arguments, "--stack", "dev", "--non-interactive"],
            cwd=folder,
            env=platform.pulumi_env(folder),
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    pulumi("stack", "init")
    try:
        pulumi("up", "--yes", "--skip-preview")
        outputs: dict[str, Any] = json.loads(pulumi("stack", "output", "--json"))
        client = json.loads(platform.kubectl("-n", "assistant", "get", "configmap", "client", "-o", "json"))
        assert client["data"]["endpoint"] == "http://assistant-predictor.assistant.svc.cluster.local"
        pods = json.loads(platform.kubectl("-n", "assistant", "get", "pods", "-o", "json"))["items"]
        assert any(outputs["digest"] in json.dumps(pod["spec"]) for pod in pods)
        assert json.loads(pulumi("preview", "--json"))["changeSummary"].keys() <= {"same", "read"}
    finally:
        pulumi("destroy", "--yes")
