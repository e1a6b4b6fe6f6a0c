"""The component provider: its schema, programs that use it, and SDKs of other languages."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
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
from modelcar.version import semver
from tests.conftest import PROJECT, Platform
from tests.engine.conftest import STUB_SERVER
from tests.engine.package import Elsewhere, install, run

EXAMPLE = PROJECT / "examples/other-languages/Pulumi.yaml"
SDKS = PROJECT / "tests/fixtures/sdks"
COMPONENTS = {
    *("ModelcarImage", "ModelService", "SharedRuntime", "EgressPolicy", "IngressPolicy", "PullAccess"),
    *("PrePull", "Autoscaler", "KServePlatform", "ServedModel"),
}
OF_GOOGLE = {"ModelRegistry", "NodeServiceAccount", "GpuNodePool", "GoogleCloud"}
OF_A_CLUSTER = {"kubeconfig", "clusterIdentifier"}

#: A program without an SDK: it knows the components by their types alone. An output of one goes into another.
PROGRAM = """
import json, os, pulumi

class Remote(pulumi.ComponentResource):
    endpoint: pulumi.Output[str]

    def __init__(self, kind, name, properties, outputs, opts=None):
        told = dict.fromkeys(outputs)
        super().__init__(f"modelcar-kserve:index:{kind}", name, {**told, **properties}, opts, remote=True)

parts = json.loads(os.environ["PROPS"])
image = Remote("ModelcarImage", "assistant", parts["image"], ["storageUri", "digest"])
closed = Remote("EgressPolicy", "assistant", parts["egress"], ["name"])
service = Remote(
    "ModelService",
    "assistant",
    {**parts["service"], "storageUri": image.storageUri},
    ["endpoint"],
    pulumi.ResourceOptions(depends_on=[closed]),
)
pulumi.export("digest", image.digest)
pulumi.export("endpoint", service.endpoint)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def schema(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the provider says of itself, started as Pulumi starts it."""
    process = subprocess.Popen(
        [str(environment / "bin/python"), str(PROJECT / "packaging/plugin/__main__.py"), "127.0.0.1:1"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path_factory.mktemp("provider"),
    )
    try:
        assert process.stdout
        port = process.stdout.readline().strip()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = provider_pb2_grpc.ResourceProviderStub(channel)
            answer = stub.GetSchema(provider_pb2.GetSchemaRequest(version=0))
        yield json.loads(answer.schema)
    finally:
        process.kill()
        process.wait()


def properties_of(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each property of the schema, with its place."""
    for token, resource in schema["resources"].items():
        for part in ("inputProperties", "properties"):
            yield from ((f"{token}.{part}.{name}", found) for name, found in resource[part].items())
    for token, kind in schema["types"].items():
        yield from ((f"{token}.{name}", found) for name, found in kind["properties"].items())


def test_the_schema_has_every_component_and_a_type_for_everything(schema: dict[str, Any]) -> None:
    names = {token.rpartition(":")[2] for token in schema["resources"]}
    assert names == COMPONENTS | OF_GOOGLE
    assert "pulumi.json#/" not in json.dumps(schema), "no any, no asset"
    undescribed = [place for place, found in properties_of(schema) if not found.get("description")]
    assert undescribed == []
    vague = [
        place
        for place, found in properties_of(schema)
        if found.get("type") == "object" and "additionalProperties" not in found
    ]
    assert vague == [], "a map says of what"
    assert schema["version"] == semver(), "SDKs and stacks get the version of the release"


@pytest.mark.parametrize(
    ("component", "names"),
    [
        ("ModelcarImage", {"registry"}),
        ("ModelService", {"storageUri", "namespace", "nodePool", "serviceAccount", *OF_A_CLUSTER}),
        ("ServedModel", {"registry", "storageUri", "namespace", "nodePool", "serviceAccount", *OF_A_CLUSTER}),
        ("PullAccess", {"namespace", "host", "secret", "username", "password", *OF_A_CLUSTER}),
        ("ModelRegistry", {"project", "region", "reader"}),
        ("GpuNodePool", {"project", "cluster", "location", "serviceAccount"}),
    ],
)
def test_what_another_resource_can_produce_is_an_input(
    schema: dict[str, Any], component: str, names: set[str]
) -> None:
    found = schema["resources"][f"modelcar-kserve:index:{component}"]["inputProperties"]
    assert {name for name, property in found.items() if not property.get("plain")} == names


def faults(properties: dict[str, Any], known: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    """Yield what a compiler of another language would say of properties."""
    types = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict}
    for name, value in properties.items():
        if name not in known:
            yield f"{name} is unknown"
        elif reference := known[name].get("$ref"):
            kind = schema["types"][reference.removeprefix("#/types/")]
            yield from (f"{name}.{fault}" for fault in faults(value, kind["properties"], schema))
            yield from (f"{name}.{part} is missing" for part in kind.get("required", ()) if part not in value)
        elif not isinstance(value, types[known[name]["type"]]):
            yield f"{name} is no {known[name]['type']}"


def test_the_example_in_another_language_keeps_to_the_schema(schema: dict[str, Any]) -> None:
    example = yaml.safe_load(EXAMPLE.read_text())
    made = example["resources"]["assistant"]
    resource = schema["resources"][made["type"]]
    known = resource["inputProperties"]
    assert [name for name in resource["requiredInputs"] if name not in made["properties"]] == []
    assert list(faults(made["properties"], known, schema)) == []
    slips = {"resources": {"gpus": "one"}, "modle": "x", "vllmServer": {"maxModelLen": "2k"}}
    assert list(faults(slips, known, schema)) == [
        "resources.gpus is no integer",
        "modle is unknown",
        "vllmServer.image is missing",
    ]
    used = re.findall(r"\$\{assistant\.(\w+)\}", json.dumps(example["outputs"]))
    assert set(used) <= set(resource["properties"])
    assert len(used) == 2


@dataclass
class Served(Elsewhere):
    """A project in another language. plugin: the component provider's folder, as `package add` takes it."""

    plugin: Path = field(default_factory=Path)
    namespace: str = ""

    @property
    def pod(self) -> dict[str, Any]:
        """The server and what it asks for, on a node without GPUs."""
        return {
            "customServer": {"image": self.platform.server_image, "command": STUB_SERVER},
            "resources": {"gpus": 0, "cpu": "100m", "memory": "64Mi", "sharedMemory": "16Mi"},
            "startTimeoutSeconds": 120,
        }

    @property
    def place(self) -> dict[str, Any]:
        """Where it is served."""
        return {"namespace": self.namespace, "kubeconfig": self.platform.kubeconfig}

    def is_served(self) -> None:
        """Assert that the model is served, from what the stack's outputs say."""
        outputs = json.loads(self.pulumi("stack", "output", "--json"))
        assert outputs["endpoint"] == f"http://assistant-predictor.{self.namespace}.svc.cluster.local"
        pods = json.loads(self.platform.kubectl("-n", self.namespace, "get", "pods", "-o", "json"))["items"]
        assert any(outputs["digest"] in json.dumps(pod["spec"]) for pod in pods)


@pytest.fixture
def elsewhere(environment: Path, platform: Platform, tmp_path: Path) -> Iterator[Served]:
    folder, plugin = tmp_path / "project", tmp_path / "plugin"
    folder.mkdir()
    shutil.copytree(PROJECT / "packaging/plugin", plugin, ignore=shutil.ignore_patterns(".venv"))
    (plugin / ".venv").symlink_to(environment)
    namespace = f"elsewhere-{uuid.uuid4().hex[:8]}"
    made = Served(folder, environment, platform, plugin=plugin, namespace=namespace)
    made.lock("assistant")
    platform.kubectl("create", "namespace", namespace)
    try:
        yield made
    finally:
        if (folder / "Pulumi.yaml").exists():
            made.pulumi("destroy", "--yes", "--stack", "dev")
        platform.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.mark.extended
def test_components_are_made_for_a_program_of_any_language(elsewhere: Served) -> None:
    (elsewhere.folder / "__main__.py").write_text(PROGRAM)
    (elsewhere.folder / "Pulumi.yaml").write_text(
        "name: any\nruntime: {name: python, options: {virtualenv: .venv}}\n"
    )
    (elsewhere.folder / ".venv").symlink_to(elsewhere.environment)
    settings = elsewhere.platform.settings
    parts = {
        "image": {
            "lock": "modelcar/models/assistant/model.lock",
            "registry": settings["registry"],
            "insecure": True,
            "builder": settings["builder"],
        },
        "egress": {"service": "assistant", **elsewhere.place},
        "service": {**elsewhere.place, **elsewhere.pod},
    }
    # Where the package is installed, Pulumi finds its provider on PATH.
    path = f"{elsewhere.environment / 'bin'}:{elsewhere.platform.pulumi_env(elsewhere.folder)['PATH']}"

    def pulumi(*arguments: str, check: bool = True, **changes: Any) -> str:
        service = {**parts["service"], **changes}
        elsewhere.variables |= {"PATH": path, "PROPS": json.dumps({**parts, "service": service})}
        return elsewhere.pulumi(*arguments, check=check)

    pulumi("stack", "init", "dev")
    refused = pulumi("preview", check=False, replicas={"max": 0})
    assert "replicas.max: 0" in refused
    assert "fix: correct replicas.max" in refused
    refused = pulumi("preview", check=False, replicsa={"max": 1}, awaitReady="no")
    assert "did you mean replicas?" in refused
    assert "correct awaitReady" in refused
    refused = pulumi("preview", check=False, vllmServer={"image": elsewhere.platform.server_image})
    assert "vllmServer, customServer: both are set" in refused
    shown = pulumi("preview", "--json")
    pulumi("up", "--yes", "--skip-preview")
    elsewhere.is_served()
    assert json.loads(pulumi("stack", "output", "--json"))["digest"] in shown
    again = json.loads(pulumi("preview", "--json"))
    assert again["changeSummary"].keys() <= {"same", "read"}


@pytest.fixture
def in_yaml(elsewhere: Served) -> Served:
    """The example as it is, but for the way to the package; `path` has Pulumi's own YAML host."""
    host = find_tool("pulumi-language-yaml", print)
    elsewhere.variables["PATH"] = f"{host.parent}:{elsewhere.platform.pulumi_env(elsewhere.folder)['PATH']}"
    assert "modelcar-kserve: ../../packaging/plugin\n" in EXAMPLE.read_text()
    text = EXAMPLE.read_text().replace("../../packaging/plugin", str(elsewhere.plugin))
    (elsewhere.folder / "Pulumi.yaml").write_text(text)
    elsewhere.pulumi("stack", "init", "dev")
    return elsewhere


@pytest.mark.extended
def test_the_example_in_yaml_serves_a_model(in_yaml: Served) -> None:
    program = in_yaml.folder / "Pulumi.yaml"
    document = yaml.safe_load(program.read_text())
    made = document["resources"]["assistant"]["properties"]
    settings = in_yaml.platform.settings

    def write(**changes: Any) -> None:
        made.update(changes)
        program.write_text(yaml.safe_dump(document))

    for key, value in (
        ("registry", settings["registry"]),
        ("serverImage", in_yaml.platform.server_image),
        ("namespace", in_yaml.namespace),
    ):
        in_yaml.pulumi("config", "set", key, value)
    write(modle="x")
    refused = in_yaml.pulumi("preview", check=False)
    assert "modle" in refused, "the host knows the component's schema"

    del made["modle"]
    server = {**made["vllmServer"], "command": STUB_SERVER}
    image = {"insecure": True, "builder": settings["builder"]}
    own = {"vllmServer": server, "image": image, "kubeconfig": in_yaml.platform.kubeconfig}
    write(**own, resources=in_yaml.pod["resources"], startTimeoutSeconds=120)
    shown = in_yaml.pulumi("preview", "--json")
    in_yaml.pulumi("up", "--yes", "--skip-preview")
    in_yaml.is_served()
    assert json.loads(in_yaml.pulumi("stack", "output", "--json"))["digest"] in shown
    again = json.loads(in_yaml.pulumi("preview", "--json"))
    assert again["changeSummary"].keys() <= {"same", "read"}
    in_yaml.pulumi("destroy", "--yes")
    assert in_yaml.platform.kubectl("-n", in_yaml.namespace, "get", "isvc", "-o", "name") == ""


@pytest.mark.extended
def test_the_package_is_added_to_a_project(in_yaml: Served, tmp_path: Path) -> None:
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


# --- SDKs, and a program against each: compiled, and not run


@pytest.fixture
def sdk(schema: dict[str, Any], tmp_path: Path) -> Callable[[str], Path]:
    """What writes the SDK of a language."""
    (tmp_path / "schema.json").write_text(json.dumps(schema))

    def generated(language: str) -> Path:
        run(find_tool("pulumi-sdks", print), language, tmp_path / "schema.json", tmp_path / "out")
        return tmp_path / "out"

    return generated


@pytest.mark.extended
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_a_program_in_typescript_compiles_and_its_slips_do_not(
    sdk: Callable[[str], Path], tmp_path: Path
) -> None:
    made, project = sdk("nodejs"), tmp_path / "project"
    shutil.copytree(SDKS / "nodejs", project)
    shutil.copytree(made, project / "sdk")
    run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=project)
    compiler = project / "node_modules/.bin/tsc"
    options = ["--noEmit", "--strict", "--skipLibCheck", "--target", "ES2022"]
    options += ["--module", "nodenext", "--moduleResolution", "nodenext"]
    run(compiler, *options, "program.ts", cwd=project)
    # Each slip is marked as one, which the compiler refuses where it is none.
    program = project / "program.ts"
    program.write_text(program.read_text().replace("resources: { gpu: 1 }", "resources: { gpus: 1 }"))
    command = [str(compiler), *options, "program.ts"]
    said = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert said.returncode
    assert "Unused '@ts-expect-error' directive" in said.stdout


@pytest.mark.extended
def test_a_program_in_go_compiles(sdk: Callable[[str], Path], tmp_path: Path) -> None:
    module = tmp_path / "module"
    shutil.copytree(sdk("go") / "modelcarkserve", module)
    for name in ("go.mod", "go.sum"):
        shutil.copy(SDKS / "go" / name, module)
    (module / "program").mkdir()
    shutil.copy(SDKS / "go/program.go", module / "program/main.go")
    run("go", "vet", "./...", cwd=module)
    program = module / "program/main.go"
    program.write_text(program.read_text().replace("MaxModelLen: &length", "MaxModelLenght: &length"))
    said = subprocess.run(["go", "vet", "./program"], cwd=module, capture_output=True, text=True, check=False)
    assert said.returncode
    assert "unknown field MaxModelLenght" in said.stderr
