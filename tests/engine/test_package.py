"""The components as a package: for a program that has nothing of this repository."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from local.plugins import PLUGINS
from local.tool_list import DOCKER_BUILD_VERSION
from local.tools import find_tool
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
    values = {"cpus": 1, "promoteFrom": "acme/modelcar/dev"}
    code = f"import modelcar_kserve as m\ntry: m.load_model({values})\nexcept m.InputError as e: print(e)"
    said = run(environment / "bin/python", "-c", code)
    assert "modelcar:cpus: unknown key" in said
    assert "modelcar:registry: not set" in said
    assert "modelcar:promoteFrom: acme/modelcar/dev\n    allowed: mirrors" in said, (
        "only the program reads it"
    )


def test_a_program_of_its_own_serves_a_model(environment: Path, platform: Platform, tmp_path: Path) -> None:
    folder = tmp_path / "assistant"
    folder.mkdir()
    for part in ("Pulumi.yaml", "__main__.py"):
        (folder / part).write_text((PROJECT / "examples/library" / part).read_text())
    (folder / ".venv").symlink_to(environment)
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


@dataclass
class Elsewhere:
    """A project in another language, beside an installed package.

    folder: of the project, with a locked model. plugin: the component provider's, as `package add` takes it.
    """

    folder: Path
    plugin: Path
    environment: Path
    platform: Platform
    namespace: str
    properties: dict[str, Any]
    variables: dict[str, str] = field(default_factory=dict)

    def pulumi(self, *arguments: str, check: bool = True) -> str:
        result = subprocess.run(
            ["pulumi", *arguments, "--non-interactive"],
            cwd=self.folder,
            env={**self.platform.pulumi_env(self.folder), **self.variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (result.returncode == 0) is check, result.stdout + result.stderr
        return result.stdout

    def is_served(self) -> None:
        """Assert that the model is served, from what the stack's outputs say."""
        outputs = json.loads(self.pulumi("stack", "output", "--json"))
        assert outputs["endpoint"] == f"http://assistant-predictor.{self.namespace}.svc.cluster.local"
        pods = json.loads(self.platform.kubectl("-n", self.namespace, "get", "pods", "-o", "json"))["items"]
        assert any(outputs["digest"] in json.dumps(pod["spec"]) for pod in pods)


@pytest.fixture
def elsewhere(environment: Path, platform: Platform, tmp_path: Path) -> Iterator[Elsewhere]:
    folder, plugin = tmp_path / "project", tmp_path / "plugin"
    folder.mkdir()
    shutil.copytree(PROJECT / "packaging/plugin", plugin, ignore=shutil.ignore_patterns(".venv"))
    (plugin / ".venv").symlink_to(environment)
    make_tiny_model(folder / "weights")
    lock = (environment / "bin/python", "-m", "modelcar_kserve", "lock", "assistant", "--folder", "weights")
    subprocess.run([str(part) for part in lock], cwd=folder, check=True, capture_output=True)
    namespace = f"elsewhere-{uuid.uuid4().hex[:8]}"
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
        "namespace": namespace,
        "kubeconfig": platform.kubeconfig,
        "gpuCount": 0,
        "project": str(folder),
        "settings": more,
    }
    made = Elsewhere(folder, plugin, environment, platform, namespace, properties)
    platform.kubectl("create", "namespace", namespace)
    try:
        yield made
    finally:
        if (folder / "Pulumi.yaml").exists():
            made.pulumi("destroy", "--yes", "--stack", "dev")
        platform.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.mark.extended
def test_the_component_is_made_for_a_program_of_any_language(elsewhere: Elsewhere) -> None:
    (elsewhere.folder / "__main__.py").write_text(PROGRAM)
    (elsewhere.folder / "Pulumi.yaml").write_text(
        "name: any\nruntime: {name: python, options: {virtualenv: .venv}}\n"
    )
    (elsewhere.folder / ".venv").symlink_to(elsewhere.environment)

    def pulumi(*arguments: str, check: bool = True, **changes: Any) -> str:
        # Where the package is installed, Pulumi finds its provider on PATH.
        path = f"{elsewhere.environment / 'bin'}:{elsewhere.platform.pulumi_env(elsewhere.folder)['PATH']}"
        properties = json.dumps({**elsewhere.properties, **changes})
        elsewhere.variables |= {"PATH": path, "PROPS": properties}
        return elsewhere.pulumi(*arguments, check=check)

    pulumi("stack", "init", "dev")
    more = {**elsewhere.properties["settings"], "cpus": 1}
    refused = pulumi("preview", check=False, settings=more)
    assert "modelcar:cpus: unknown key" in refused
    pulumi("up", "--yes", "--skip-preview")
    elsewhere.is_served()


@pytest.fixture
def in_yaml(elsewhere: Elsewhere) -> Elsewhere:
    """The example as it is, but for the way to the package; `path` has Pulumi's own YAML host."""
    host = find_tool("pulumi-language-yaml", print)
    elsewhere.variables["PATH"] = f"{host.parent}:{elsewhere.platform.pulumi_env(elsewhere.folder)['PATH']}"
    example = (PROJECT / "examples/other-languages/Pulumi.yaml").read_text()
    assert "modelcar-kserve: ../../packaging/plugin\n" in example
    text = example.replace("../../packaging/plugin", str(elsewhere.plugin))
    (elsewhere.folder / "Pulumi.yaml").write_text(text)
    elsewhere.pulumi("stack", "init", "dev")
    return elsewhere


@pytest.mark.extended
def test_the_example_in_yaml_serves_a_model(in_yaml: Elsewhere) -> None:
    program = in_yaml.folder / "Pulumi.yaml"
    document = yaml.safe_load(program.read_text())
    made = document["resources"]["assistant"]["properties"]

    def write(**changes: Any) -> None:
        made.update(changes)
        program.write_text(yaml.safe_dump(document))

    for key in ("registry", "serverImage"):
        in_yaml.pulumi("config", "set", key, in_yaml.properties[key])
    platform_s = {key: in_yaml.properties[key] for key in ("namespace", "kubeconfig", "gpuCount", "project")}
    of_another_server = made["settings"] | in_yaml.properties["settings"]
    del of_another_server["vllm"]
    write(**platform_s, settings=of_another_server, modle="x")
    refused = in_yaml.pulumi("preview", check=False)
    assert "modle" in refused, "the host knows the component's schema"

    del made["modle"]
    write()
    shown = in_yaml.pulumi("preview", "--json")
    in_yaml.pulumi("up", "--yes", "--skip-preview")
    in_yaml.is_served()
    assert json.loads(in_yaml.pulumi("stack", "output", "--json"))["digest"] in shown
    again = json.loads(in_yaml.pulumi("preview", "--json"))
    assert again["changeSummary"].keys() <= {"same", "read"}
    in_yaml.pulumi("destroy", "--yes")
    assert in_yaml.platform.kubectl("-n", in_yaml.namespace, "get", "isvc", "-o", "name") == ""


@pytest.mark.extended
def test_the_package_is_added_to_a_project(in_yaml: Elsewhere, tmp_path: Path) -> None:
    """`package add` installs the plugins that the package names, so they are put where it looks for them."""
    in_yaml.variables["PULUMI_HOME"] = str(tmp_path / "home")
    for name, version in {**PLUGINS, "docker-build": DOCKER_BUILD_VERSION}.items():
        # Google's is named by the package and not run here.
        path = f"{in_yaml.variables['PATH']}:{PROJECT / 'local/standins/bin'}"
        found = shutil.which(f"pulumi-resource-{name}", path=path)
        assert found, name
        in_yaml.pulumi("plugin", "install", "resource", name, version, "--file", found)
    said = in_yaml.pulumi("package", "add", str(in_yaml.plugin), check=False)
    assert "Successfully generated an SDK for the modelcar-kserve package" in said
    [sdk] = (in_yaml.folder / "sdks").rglob("*.yaml")
    assert yaml.safe_load(sdk.read_text())["name"] == "modelcar-kserve"
