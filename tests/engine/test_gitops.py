"""Delivery by Git: `up` builds, pushes and writes files, and leaves the cluster to Argo CD."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.engine.conftest import Project

OBJECTS = ["inferenceservice.yaml", "networkpolicy.yaml", "servingruntime.yaml"]


@pytest.fixture
def folder(project: Project, tmp_path: Path) -> Path:
    """A folder of a Git checkout, where the stack delivers to."""
    checkout = tmp_path / "deploy"
    checkout.mkdir()
    subprocess.run(["git", "init", "--quiet", str(checkout)], check=True)
    made = checkout / "apps" / "tiny"
    repository = "https://git.example/deploy.git"
    project.configure(delivery="gitops", gitops={"folder": str(made), "repository": repository})
    return made


def state_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    paths = sorted(path for path in folder.parent.rglob("*") if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def test_up_writes_what_the_preview_showed_and_touches_no_cluster(project: Project, folder: Path) -> None:
    shown = project.pulumi("preview", "--color=never").stdout
    assert "5 files change" in shown
    assert "+  name: tiny" in shown
    assert not folder.exists()

    outputs = project.up()
    assert sorted(path.name for path in folder.iterdir()) == OBJECTS
    assert outputs["storageUri"] in (folder / "inferenceservice.yaml").read_text()
    assert "path: apps/tiny" in (folder.parent / "argocd" / f"{project.namespace}-test.yaml").read_text()
    assert not [kind for kind in project.resources() if "kubernetes" in kind]
    assert project.platform.kubectl("get", "namespace", project.namespace, check=False).startswith("Error")

    before = state_of(folder)
    assert "nothing changes" in project.pulumi("preview", "--color=never").stdout
    project.up()
    assert state_of(folder) == before, "a run that changes nothing writes nothing"

    # What Argo CD would do.
    project.platform.kubectl("create", "namespace", project.namespace)
    try:
        project.platform.kubectl("apply", "--server-side", "-f", str(folder))
        ready = ("wait", "--for=condition=Ready", "--timeout=120s", "isvc/tiny")
        project.platform.kubectl("-n", project.namespace, *ready)
        project.change_weights(seed=3)
        shown = project.pulumi("preview", "--color=never").stdout
        assert f"-      storageUri: {outputs['storageUri']}" in shown
        assert state_of(folder) == before
        changed = project.up()
        assert changed["storageUri"] in (folder / "inferenceservice.yaml").read_text()
    finally:
        project.platform.kubectl("delete", "namespace", project.namespace, "--wait=false")


@pytest.mark.extended
def test_a_served_model_is_handed_over_without_being_touched(project: Project, folder: Path) -> None:
    gitops = project.config["gitops"]
    project.configure(delivery="cluster", gitops=None)
    project.up()
    here = ("-n", project.namespace, "get", "pods", "-o", "jsonpath={.items[*].metadata.uid}")
    pods = project.platform.kubectl(*here)
    [space] = [
        line
        for line in project.pulumi("stack", "--show-urns").stdout.split()
        if line.endswith(f"::kubernetes:core/v1:Namespace::{project.namespace}")
    ]
    try:
        project.configure(delivery="gitops", gitops=gitops)
        refused = project.pulumi("preview", "--color=never", check=False)
        assert refused.returncode
        assert f"--target-dependents '{space}'" in refused.stdout + refused.stderr
        project.pulumi("state", "delete", space, "--target-dependents", "--yes")
        # Of the cluster's provider, which nothing has any more, only the state is told.
        assert {step["op"] for step in project.preview()} <= {"delete"}
        assert not [step for step in project.preview() if "providers:" not in step["urn"]]
        project.up()
        assert project.platform.kubectl(*here) == pods
        project.platform.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(folder))
        ready = ("wait", "--for=condition=Ready", "--timeout=120s", "isvc/tiny")
        project.platform.kubectl("-n", project.namespace, *ready)
    finally:
        project.platform.kubectl("delete", "namespace", project.namespace, "--wait=false")


def test_a_file_of_somebody_else_stops_it_before_anything_is_declared(project: Project, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "inferenceservice.yaml").write_text("kind: InferenceService\n")
    refused = project.pulumi("up", "--yes", "--skip-preview", check=False)
    assert refused.returncode
    assert "was not written by this program" in refused.stdout + refused.stderr
    assert set(project.resources()) <= {"pulumi:pulumi:Stack"}
