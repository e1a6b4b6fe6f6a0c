"""The templates of `pulumi new`: each makes a project whose program runs with the package."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from modelcar import version
from modelcar.__main__ import main

PROJECT = Path(__file__).parents[2]
TEMPLATES = sorted(path.parent for path in (PROJECT / "templates").glob("*/Pulumi.yaml"))
#: What a person has to say, as no default could be right.
SAID = {"registry": "registry.example.com/models", "gcp:project": "acme-models"}
SPECIAL = {"${PROJECT}": "my-project", "${DESCRIPTION}": "What it is for"}

#: Runs a program as a preview with mocks, and prints what it declares and exports.
RUNNER = """
import asyncio, json, runpy, sys
import pulumi
from pulumi.runtime import mocks
from pulumi.runtime.stack import run_pulumi_func

declared = []

class Provider(mocks.Mocks):
    def new_resource(self, args):
        declared.append({"type": args.typ, "name": args.name, "inputs": args.inputs})
        return f"{args.name}-id", dict(args.inputs)

    def call(self, args):
        return {}, []

async def program():
    runpy.run_path("__main__.py")

async def main():
    mocks.set_mocks(Provider(), project="my-project", stack="dev", preview=True)
    pulumi.runtime.set_all_config(json.loads(sys.argv[1]))
    await run_pulumi_func(program)
    print(json.dumps(declared, default=str))

asyncio.run(main())
"""


def of_template(template: Path) -> dict[str, Any]:
    """Return what a template asks for."""
    document = yaml.safe_load((template / "Pulumi.yaml").read_text())
    return dict(document["template"])


def instantiate(template: Path, folder: Path) -> Path:
    """Do what `pulumi new` does: copy each file, with the project's name and description."""
    for path in template.iterdir():
        if path.is_dir():
            continue  # __pycache__
        text = path.read_text()
        for placeholder, value in SPECIAL.items():
            text = text.replace(placeholder, value)
        (folder / path.name).write_text(text)
    return folder


def settings(template: Path) -> dict[str, str]:
    """Return a project's configuration where a person takes each default that there is."""
    keys = of_template(template)["config"]
    values = {key: entry.get("default", SAID.get(key)) for key, entry in keys.items()}
    missing = [key for key, value in values.items() if value is None]
    assert not missing, f"a template asks for {missing}: say in SAID what a person would"
    return {(key if ":" in key else f"my-project:{key}"): value for key, value in values.items()}


def read_by(program: str) -> Iterator[str]:
    """Yield the keys that a program reads of its configuration."""
    spaces: dict[str, str] = {}
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.Assign):
            targets, values = node.targets[0], node.value
            names = targets.elts if isinstance(targets, ast.Tuple) else [targets]
            made = values.elts if isinstance(values, ast.Tuple) else [values]
            for name, call in zip(names, made, strict=False):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "pulumi.Config":
                    spaces[ast.unparse(name)] = ast.literal_eval(call.args[0]) + ":" if call.args else ""
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of = ast.unparse(node.func.value)
            if of in spaces and re.match("get|require", node.func.attr):
                yield spaces[of] + ast.literal_eval(node.args[0])


def preview(
    project: Path, package: Path, config: dict[str, str], model: str = "my-model"
) -> list[dict[str, Any]]:
    """Return what a project's program declares, with the package and nothing else of this repository."""
    assert main(["tiny", str(project / "weights")]) == 0
    lock = ["lock", model, "--folder", str(project / "weights")]
    assert main(lock, project=project) == 0
    result = subprocess.run(
        [sys.executable, "-c", RUNNER, json.dumps(config)],
        cwd=project,
        env={"PYTHONPATH": str(package), "KUBECONFIG": "/nowhere", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    declared: list[dict[str, Any]] = json.loads(result.stdout.splitlines()[-1])
    return declared


def of_kind(declared: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    [found] = [row["inputs"] for row in declared if row["type"].endswith(kind)]
    return dict(found)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_a_template_asks_for_what_its_program_reads_and_no_more(template: Path) -> None:
    asked = of_template(template)["config"]
    assert set(asked) == set(read_by((template / "__main__.py").read_text()))
    assert all(entry["description"] for entry in asked.values())
    assert {key for key, entry in asked.items() if "default" not in entry} <= SAID.keys()
    assert all(isinstance(entry.get("default", ""), str) for entry in asked.values()), "Pulumi takes texts"


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_a_template_has_all_that_a_project_needs(template: Path, tmp_path: Path) -> None:
    project = instantiate(template, tmp_path)
    document = yaml.safe_load((project / "Pulumi.yaml").read_text())
    assert (document["name"], document["description"]) == ("my-project", "What it is for")
    assert of_template(template)["description"]
    assert not [path for path in project.iterdir() if "${" in path.read_text()]
    assert "modelcar/data/" in (project / ".gitignore").read_text(), "no weights in Git"
    [line] = [row for row in (project / "requirements.txt").read_text().splitlines() if "#" not in row]
    wanted = Requirement(line)
    assert wanted.specifier.contains(version.version(), prereleases=True), "of this version's package"
    assert ("google" in wanted.extras) is ("google" in (project / "__main__.py").read_text())


def test_an_image_alone(package: Path, tmp_path: Path) -> None:
    template = PROJECT / "templates/modelcar-image"
    declared = preview(instantiate(template, tmp_path), package, settings(template))
    image = of_kind(declared, "docker-build:index:Image")
    assert "name=registry.example.com/models/my-model:" in json.dumps(image["exports"])
    assert not [row for row in declared if row["type"].startswith("kubernetes:")]


def test_on_a_cluster_of_ones_own(package: Path, tmp_path: Path) -> None:
    template = PROJECT / "templates/modelcar-own-cluster"
    config = settings(template) | {"my-project:kubeContext": "lab", "my-project:gpus": "2"}
    declared = preview(instantiate(template, tmp_path), package, config)
    assert of_kind(declared, "pulumi:providers:kubernetes")["context"] == "lab"
    assert of_kind(declared, ":Namespace")["metadata"]["name"] == "models"
    service = of_kind(declared, ":InferenceService")["spec"]["predictor"]
    assert service["model"]["resources"]["limits"]["nvidia.com/gpu"] in {2, "2"}
    runtime = of_kind(declared, ":ServingRuntime")
    assert settings(template)["my-project:serverImage"] in json.dumps(runtime)


def test_on_gke(package: Path, tmp_path: Path) -> None:
    template = PROJECT / "templates/modelcar-gke"
    declared = preview(instantiate(template, tmp_path), package, settings(template))
    pools = [row["inputs"] for row in declared if row["type"].endswith("nodePool:NodePool")]
    [pool] = [inputs for inputs in pools if "guestAccelerators" in inputs["nodeConfig"]]
    assert pool["nodeConfig"]["diskSizeGb"] == 200
    assert pool["nodeConfig"]["guestAccelerators"][0]["type"] == "nvidia-l4"
    assert of_kind(declared, "repository:Repository")["location"] == "europe-west4"
    assert of_kind(declared, ":InferenceService")["metadata"]["name"] == "my-model"


@pytest.mark.parametrize("template", ["modelcar-own-cluster", "modelcar-gke"])
def test_a_model_may_have_a_name_that_kserve_has_not(package: Path, tmp_path: Path, template: str) -> None:
    """As many of the hub have; KServe takes no dots."""
    path = PROJECT / "templates" / template
    model = "qwen2.5-0.5b"
    config = settings(path) | {"my-project:model": model}
    declared = preview(instantiate(path, tmp_path), package, config, model)
    service = of_kind(declared, ":InferenceService")
    assert service["metadata"]["name"] == "qwen2-5-0-5b"
    assert "qwen2-5-0-5b" in json.dumps(of_kind(declared, ":NetworkPolicy")["spec"]["podSelector"])
    arguments = of_kind(declared, ":ServingRuntime")["spec"]["containers"][0]["args"]
    assert arguments[arguments.index("--served-model-name") + 1] == model
    image = of_kind(declared, "docker-build:index:Image")
    assert f"/{model}:" in json.dumps(image["exports"])


def test_the_servers_image_is_the_one_that_the_stacks_have() -> None:
    stack = yaml.safe_load((PROJECT / "Pulumi.dev.yaml").read_text())
    servers = {of_template(path)["config"].get("serverImage", {}).get("default") for path in TEMPLATES}
    assert servers - {None} == {stack["config"]["modelcar:serverImage"]}
