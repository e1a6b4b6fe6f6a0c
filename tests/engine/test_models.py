"""Many models in one stack: each comes, changes, fails and goes by itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from modelcar import locking
from modelcar.registry import Registry, Target
from modelcar.tiny_model import make_tiny_model
from tests.engine.conftest import STUB_SERVER, Project

Add = Callable[..., dict[str, Any]]
CRASHES = ["sh", "-c", "echo 'RuntimeError: no GPU was found'; exit 3", "stub"]


@pytest.fixture
def model(project: Project) -> Add:
    """Lock a model with weights of its own, and return its entry."""

    def make(letter: str, seed: int | None = None, **settings: Any) -> dict[str, Any]:
        name = f"{letter}-{project.namespace}"
        folder = project.folder.parent / "weights" / name
        shutil.rmtree(folder, ignore_errors=True)
        make_tiny_model(folder, seed=ord(letter) if seed is None else seed)
        description = locking.Description(folder=str(folder), license="Apache-2.0")
        locking.lock_model(name, description, locking.resolve(description, project.folder), project.folder)
        return {"name": name, **settings}

    project.configure(model=None, serviceName=None)
    return make


def up(project: Project, *more: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return project.pulumi("up", "--yes", "--skip-preview", "--color=never", *more, check=check)


def outputs(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(project.pulumi("stack", "output", "--json").stdout)
    return found


def changed(project: Project) -> set[tuple[str, str]]:
    """Return (operation, name) of what a preview would change."""
    return {(step["op"], step["urn"].rpartition("::")[2]) for step in project.preview()}


def names(steps: set[tuple[str, str]]) -> set[str]:
    return {name for _, name in steps}


def test_models_come_and_go_by_themselves(project: Project, model: Add) -> None:
    a, b, c = model("a"), model("b"), model("c")
    project.configure(models=[a, b])
    up(project)
    told = outputs(project)["models"]
    assert set(told) == {a["name"], b["name"]}
    assert len({found["modelDigest"] for found in told.values()}) == 2
    assert project.preview() == []

    # Another one: nothing of those that are there is touched.
    project.configure(models=[c, a, b])
    assert all(op == "create" and name.startswith(c["name"]) for op, name in changed(project))

    # A new name, and nothing else: not even the order counts.
    renamed = {**b, "name": f"new-{b['name']}", "formerNames": [b["name"]]}
    project.configure(models=[renamed, a])
    assert changed(project) == set()
    up(project)
    assert outputs(project)["models"][renamed["name"]] == told[b["name"]]

    # One less: what is its own goes, and its image stays in the registry, so that it can come back.
    project.configure(models=[a])
    assert all(op == "delete" and renamed["name"] in name for op, name in changed(project))
    up(project)
    services = project.platform.kubectl("-n", project.namespace, "get", "isvc", "-o", "name").split()
    assert services == [f"inferenceservice.serving.kserve.io/{a['name']}"]
    assert outputs(project)["models"].keys() == {a["name"]}
    registry, _, repository = told[b["name"]]["storageUri"].removeprefix("oci://").partition("/")
    path, _, digest = repository.partition("@")
    with Registry(Target(f"{registry}/{path.rpartition('/')[0]}", path.rpartition("/")[2], True)) as there:
        assert there.manifest(digest), "nothing deletes it but make prune"
    project.configure(models=[a, renamed])
    assert all(op == "create" and renamed["name"] in name for op, name in changed(project))
    up(project)
    assert outputs(project)["models"][renamed["name"]]["modelDigest"] == digest


@pytest.mark.extended
def test_a_service_stays_its_models_under_another_name_and_in_a_list(project: Project, model: Add) -> None:
    """Else Pulumi deletes the service by its former name, after it has made it by the new one."""
    a = model("a")
    name = a["name"]
    project.configure(model=name, serviceName=name, imageName=name)
    up(project)
    entry = {"name": f"new-{name}", "model": name, "serviceName": name}
    for before in (name, entry["name"]):
        project.configure(model=None, serviceName=None, imageName=None, models=[entry])
        refused = project.pulumi("preview", check=False)
        assert refused.returncode
        assert f"say formerNames: [{before}]" in refused.stdout + refused.stderr
        project.configure(models=[{**entry, "formerNames": [before]}])
        assert changed(project) == set()
        up(project)
        entry = {**entry, "name": f"newer-{name}"}


def test_what_a_run_leaves_out_is_as_it_was(project: Project, model: Add) -> None:
    a, b = model("a"), model("b")
    project.configure(models=[a, b])
    up(project)
    before = outputs(project)["models"]
    project.configure(models=[model("a", seed=8), model("b", seed=9)])
    own = [f"--target=**::{b['name']}{rest}" for rest in ("", "-*")]
    began = time.monotonic()
    said = up(project, *own)
    assert f"{a['name']}: left out of this run" in said.stdout + said.stderr
    assert time.monotonic() - began < project.config["startTimeoutSeconds"], "it is not waited for"
    after = outputs(project)["models"]
    assert after[a["name"]] == before[a["name"]]
    assert after[b["name"]]["modelDigest"] != before[b["name"]]["modelDigest"]
    assert names(changed(project)) >= {a["name"]}
    up(project)
    assert outputs(project)["models"][a["name"]]["modelDigest"] != before[a["name"]]["modelDigest"]


def test_one_models_failure_leaves_the_others_up_and_is_told_at_the_end(project: Project, model: Add) -> None:
    a, b, c = model("a"), model("b"), model("c")
    shutil.rmtree(locking.layout_path(project.folder, b["name"]))
    weights = project.folder.parent / "weights" / b["name"] / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    project.configure(models=[a, b, c])
    failed = up(project, "--continue-on-error", check=False)
    said = failed.stdout + failed.stderr
    print(said)
    assert failed.returncode
    assert "1 of 3 models failed" in said
    assert f"not touched by this, and as declared: {a['name']}, {c['name']}" in said
    assert "Traceback" not in said
    assert set(outputs(project)["models"]) == {a["name"], c["name"]}

    # The next run goes on from there, with what is missing and nothing else.
    weights.write_bytes(content)
    missing = names(changed(project))
    assert missing
    assert all(b["name"] in name for name in missing)
    up(project)
    assert set(outputs(project)["models"]) == {a["name"], b["name"], c["name"]}


@pytest.mark.extended
def test_a_model_whose_update_fails_serves_on_and_is_told_as_it_is(project: Project, model: Add) -> None:
    a, b = model("a"), model("b")
    project.configure(models=[a, b])
    up(project)
    before = outputs(project)["models"]

    model("b", seed=7)
    broken = {**model("a", seed=8), "serverCommand": CRASHES, "startTimeoutSeconds": 10}
    project.configure(models=[broken, b])
    failed = up(project, "--continue-on-error", check=False)
    said = failed.stdout + failed.stderr
    print(said)
    assert failed.returncode
    assert "RuntimeError: no GPU was found" in said
    assert "1 of 2 models failed" in said
    assert "Traceback" not in said
    after = outputs(project)["models"]
    assert after[b["name"]]["modelDigest"] != before[b["name"]]["modelDigest"], "the other one is updated"
    assert after[a["name"]] == before[a["name"]], "what serves on is told"

    project.configure(models=[{**broken, "serverCommand": STUB_SERVER, "startTimeoutSeconds": 120}, b])
    up(project)
    assert outputs(project)["models"][a["name"]]["modelDigest"] != before[a["name"]]["modelDigest"]
    assert project.preview() == []


@pytest.mark.extended
def test_models_serve_with_one_runtime(project: Project, model: Add) -> None:
    a, b = model("a", sharedRuntime="stub"), model("b", sharedRuntime="stub", cpu="50m")
    project.configure(models=[a, b])
    up(project)
    kubectl = project.platform.kubectl
    runtimes = kubectl("-n", project.namespace, "get", "servingruntimes", "-o", "name").split()
    assert runtimes == ["servingruntime.serving.kserve.io/stub"]
    pods = json.loads(kubectl("-n", project.namespace, "get", "pods", "-o", "json"))["items"]
    servers = {
        pod["metadata"]["labels"]["serving.kserve.io/inferenceservice"]: pod["spec"]["containers"][0]
        for pod in pods
    }
    for entry in (a, b):
        server = servers[entry["name"]]
        assert entry["name"] in server["args"]
        assert {"name": "HF_HUB_OFFLINE", "value": "1"} in server["env"]
    assert servers[b["name"]]["resources"]["requests"]["cpu"] == "50m"
    assert project.preview() == []
    # Removing one leaves the runtime to the other.
    project.configure(models=[b])
    assert {op for op, _ in changed(project)} == {"delete"}
    assert all(a["name"] in name for name in names(changed(project)))


@pytest.mark.extended
def test_more_images_than_threads_are_built(project: Project, model: Add) -> None:
    # Pulumi registers each image in a thread of its own; the hooks must not wait for one of those.
    entries = [model(f"m{number}", seed=number) for number in range(12)]
    project.configure(models=entries, idle=True, awaitReady=False, parallelBuilds=1)
    up(project, "--parallel", "2")
    assert len({told["modelDigest"] for told in outputs(project)["models"].values()}) == 12
