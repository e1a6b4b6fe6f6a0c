"""`pulumi new` with each template, by the real CLI, and a preview of what it made. No cluster is needed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import PROJECT, Checkout, Platform
from tests.engine.package import Elsewhere, install, run
from tests.engine.test_examples import of, preview

#: Prints the variables that plain `pulumi` commands need where there is no embedded platform.
VARIABLES = """
import json, sys
from local import stack
from local.instance import load
from local.tools import collect
tools = collect(lambda line: print(line, file=sys.stderr), embedded=False, plugins=("kubernetes", "gcp"))
print(json.dumps(stack.environment(load("local"), tools)))
"""
#: A cluster that nothing listens for.
NOWHERE = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "lab", "cluster": {"server": "https://127.0.0.1:9"}}],
    "users": [{"name": "lab", "user": {}}],
    "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def tools(checkout: Checkout) -> Platform:
    """The programs that a preview runs, and no platform."""
    found = subprocess.run(
        [".venv/bin/python", "-c", VARIABLES],
        cwd=checkout.folder,
        env=checkout.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    shell = json.loads(found.stdout)
    standins = PROJECT / "local/standins/bin"
    return Platform(checkout, {}, {**shell, "PATH": f"{shell['PATH']}:{standins}"})


@pytest.fixture
def project(environment: Path, tools: Platform, tmp_path: Path) -> Elsewhere:
    folder = tmp_path / "my-project"
    folder.mkdir()
    (folder / ".venv").symlink_to(environment)
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(NOWHERE))
    variables = {"KUBECONFIG": str(kubeconfig), "MODELCAR_GCP_STANDIN": str(tmp_path / "google.json")}
    return Elsewhere(folder, environment, tools, variables)


def new(project: Elsewhere, template: str, **config: str) -> dict[str, Any]:
    """Make a project of a template with its defaults, lock a model, and return the stack's configuration."""
    said = [f"--config={key}={value}" for key, value in config.items()]
    place = str(PROJECT / "templates" / template)
    options = ("--yes", "--force", "--name=my-project", "--stack=dev")  # force: the environment is there
    made_new = subprocess.run(
        ["pulumi", "new", place, *options, *said, "--non-interactive"],
        cwd=project.folder,
        env={**project.platform.pulumi_env(project.folder), **project.variables},
        capture_output=True,
        text=True,
        check=False,
    )
    # Its last step downloads plugins, also those that are on PATH; all else is done by then.
    without_network = "installing packages: failed to download plugin" in made_new.stderr
    assert made_new.returncode == 0 or without_network, made_new.stdout + made_new.stderr
    project.lock("my-model")
    made = yaml.safe_load((project.folder / "Pulumi.dev.yaml").read_text())
    return dict(made["config"])


def test_an_image_alone(project: Elsewhere) -> None:
    config = new(project, "modelcar-image", registry="registry.example.com/models")
    assert config == {
        "my-project:registry": "registry.example.com/models",
        "my-project:model": "my-model",
    }
    assert (project.folder / "README.md").read_text().startswith("# my-project\n")
    found = preview(project)
    assert {kind.partition(":")[0] for kind in found} == {"modelcar", "docker-build"}
    [image] = of(found, "docker-build:index:Image")
    assert re.search(r"name=registry\.example\.com/models/my-model:\S+", json.dumps(image["exports"]))


def test_on_a_cluster_of_ones_own(project: Elsewhere) -> None:
    config = new(
        project, "modelcar-own-cluster", registry="registry.example.com/models", kubeContext="lab", gpus="2"
    )
    assert config["my-project:kubeContext"] == "lab"
    assert config["my-project:memory"] == "16Gi", "a default is kept"
    found = preview(project)
    [service] = of(found, ":InferenceService")
    assert service["metadata"]["name"] == "my-model"
    assert len(of(found, ":NetworkPolicy")) == 1
    assert len(of(found, "docker-build:index:Image")) == 1


@pytest.mark.skipif(
    shutil.which("pulumi-resource-gcp") is not None, reason="the official gcp plugin would reach Google"
)
def test_on_gke(project: Elsewhere) -> None:
    config = new(project, "modelcar-gke", **{"gcp:project": "acme-models"})
    assert config["gcp:region"] == "europe-west4"
    program = project.folder / "__main__.py"
    # The provider would download KServe's charts, where the cluster is known.
    charts = "KServePlatformArgs("
    assert f"{charts}access=access)" in program.read_text()
    program.write_text(program.read_text().replace(charts, f"{charts}unread=True, "))
    found = preview(project)
    pools = of(found, "container/nodePool:NodePool")
    [pool] = [pool for pool in pools if pool["nodeConfig"].get("guestAccelerators")]
    assert pool["nodeConfig"]["diskSizeGb"] == 200
    assert [kept["location"] for kept in of(found, "repository:Repository")] == ["europe-west4"]
    assert len(of(found, ":InferenceService")) == 1


@pytest.mark.extended
@pytest.mark.parametrize("name", ["modelcar-image", "modelcar-own-cluster", "modelcar-gke"])
def test_a_program_has_the_packages_types(name: str, environment: Path, tmp_path: Path) -> None:
    shutil.copy(PROJECT / "templates" / name / "__main__.py", tmp_path / "program.py")
    python = str(environment / "bin/python")
    options = ("--strict", "--follow-imports=silent", "--python-executable", python)
    run(PROJECT / ".venv/bin/mypy", *options, "program.py", cwd=tmp_path)
