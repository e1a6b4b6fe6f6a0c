"""The components as a package: for a program that has nothing of this repository."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

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


# --- for other languages

PROGRAM = """
import json, os, pulumi

class ServedModel(pulumi.ComponentResource):
    model_digest: pulumi.Output[str]
    endpoint: pulumi.Output[str]

    def __init__(self, name, props):
        outputs = {"modelDigest": None, "endpoint": None, "storageUri": None, "servedModelName": None}
        super().__init__("modelcar-kserve:index:ServedModel", name, {**outputs, **props}, None, remote=True)

made = ServedModel("assistant", json.loads(os.environ["PROPS"]))
pulumi.export("digest", made.modelDigest)
pulumi.export("endpoint", made.endpoint)
"""


@pytest.fixture(scope="module")
def provider(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The component provider as Pulumi starts it; yields its port."""
    program = PROJECT / "packaging/plugin/__main__.py"
    process = subprocess.Popen(
        [str(environment / "bin/python"), str(program), "127.0.0.1:1"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path_factory.mktemp("provider"),
    )
    try:
        assert process.stdout
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def schema_of(port: str) -> dict[str, Any]:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = provider_pb2_grpc.ResourceProviderStub(channel)
        answer = stub.GetSchema(provider_pb2.GetSchemaRequest(version=0))
    found: dict[str, Any] = json.loads(answer.schema)
    return found


def faults(properties: dict[str, Any], resource: dict[str, Any]) -> list[str]:
    """Return what a compiler of another language would say of a resource's properties."""
    types = {"string": str, "integer": int, "array": list, "object": dict}
    known = resource["inputProperties"]
    found = [f"{name} is missing" for name in resource["requiredInputs"] if name not in properties]
    for name, value in properties.items():
        if name not in known:
            found.append(f"{name} is unknown")
        elif not isinstance(value, types[known[name]["type"]]):
            found.append(f"{name} is no {known[name]['type']}")
    return found


def test_the_example_in_another_language_keeps_to_the_schema(provider: str) -> None:
    schema = schema_of(provider)
    [(token, resource)] = schema["resources"].items()
    assert all(part.get("description") for part in resource["inputProperties"].values())
    example = yaml.safe_load((PROJECT / "examples/other-languages/Pulumi.yaml").read_text())
    made = example["resources"]["assistant"]
    assert made["type"] == token
    assert faults(made["properties"], resource) == []
    assert faults({**made["properties"], "gpuCount": "one", "modle": "x"}, resource) == [
        "gpuCount is no integer",
        "modle is unknown",
    ]
    used = re.findall(r"\$\{assistant\.(\w+)\}", json.dumps(example["outputs"]))
    assert set(used) <= set(resource["properties"])
    assert len(used) == 2


@pytest.mark.extended
def test_the_component_is_made_for_a_program_of_any_language(
    environment: Path, platform: Platform, tmp_path: Path
) -> None:
    (tmp_path / "__main__.py").write_text(PROGRAM)
    (tmp_path / "Pulumi.yaml").write_text(
        "name: any\nruntime: {name: python, options: {virtualenv: .venv}}\n"
    )
    (tmp_path / ".venv").symlink_to(environment)
    (tmp_path / "standins").symlink_to(PROJECT / "standins")
    make_tiny_model(tmp_path / "weights")
    lock = (environment / "bin/python", "-m", "modelcar_kserve", "lock", "assistant", "--folder", "weights")
    subprocess.run([str(part) for part in lock], cwd=tmp_path, check=True, capture_output=True)
    platform.kubectl("create", "namespace", "any-language")
    more = {
        "registryInsecure": True,
        "builder": platform.settings["builder"],
        "serverCommand": STUB_SERVER,
        "runtime": "custom",
        "cpu": "100m",
        "memory": "64Mi",
        "sharedMemory": "16Mi",
        "startTimeoutSeconds": 120,
    }
    properties = {
        "model": "assistant",
        "registry": platform.settings["registry"],
        "serverImage": platform.server_image,
        "serviceName": "assistant",
        "namespace": "any-language",
        "kubeconfig": platform.kubeconfig,
        "gpuCount": 0,
        "project": str(tmp_path),
        "settings": more,
    }

    def pulumi(*arguments: str, check: bool = True, **changes: Any) -> str:
        variables = platform.pulumi_env(tmp_path)
        # Where the package is installed, Pulumi finds its provider on PATH.
        own = {
            "PATH": f"{environment / 'bin'}:{variables['PATH']}",
            "PROPS": json.dumps({**properties, **changes}),
        }
        result = subprocess.run(
            ["pulumi", *arguments, "--stack", "dev", "--non-interactive"],
            cwd=tmp_path,
            env={**variables, **own},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (result.returncode == 0) is check, result.stdout + result.stderr
        return result.stdout

    pulumi("stack", "init")
    try:
        refused = pulumi("preview", check=False, settings={**more, "cpus": 1})
        assert "modelcar:cpus: unknown key" in refused
        pulumi("up", "--yes", "--skip-preview")
        outputs = json.loads(pulumi("stack", "output", "--json"))
        assert outputs["endpoint"] == "http://assistant-predictor.any-language.svc.cluster.local"
        pods = json.loads(platform.kubectl("-n", "any-language", "get", "pods", "-o", "json"))["items"]
        assert any(outputs["digest"] in json.dumps(pod["spec"]) for pod in pods)
    finally:
        pulumi("destroy", "--yes")
        platform.kubectl("delete", "namespace", "any-language", "--wait=false")
