"""A stack that a former version of this project made: its resources become this version's, and stay.

Each file of tests/fixtures/states/ is the exported state of the dev stack, of that version's own `up`, with
what was the machine's in braces. A release adds its own: MODELCAR_RECORD_STATE=VERSION pytest of this file.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests import released_settings
from tests.conftest import PROJECT
from tests.engine.conftest import Project
from tests.engine.test_google import dev, gpu_node

__all__ = ["dev", "gpu_node"]

STATES = PROJECT / "tests" / "fixtures" / "states"
VERSIONS = sorted(path.stem for path in STATES.glob("*.json"))
RECORD = os.environ.get("MODELCAR_RECORD_STATE")

#: What former versions only read: it leaves their state, and nothing happens to it.
READ = "kserve-config"
#: What versions have more than the ones before. Nothing else may be made, and nothing else may go.
NEW = {
    "modelcar:kserve:Model",
    "modelcar:kserve:EgressPolicy",
    "kubernetes:networking.k8s.io/v1:NetworkPolicy",
}
REPOSITORY = "gcp:artifactregistry/repository:Repository"
SERVICE = "gcp:projects/service:Service"
#: APIs that versions had switched on unasked, or not at all: they leave the state and stay on, or are new.
LEFT, SWITCHED_ON = {"containerscanning.googleapis.com"}, {"cloudresourcemanager.googleapis.com"}


def of_the_machine(project: Project) -> dict[str, str]:
    """Return what differs from machine to machine, and from test to test, by the name that fixtures have."""
    settings = project.platform.settings
    return {
        "kubeconfig": json.dumps(Path(settings["kubeconfig"]).read_text())[1:-1],
        "kubeconfigFile": str(settings["kubeconfig"]),
        "project": str(project.folder),
        "checkout": str(project.platform.checkout.folder),
        "image": f"tiny-{project.namespace}",
        "namespace": project.namespace,
        "server": str(settings["serverImage"]),
        "registry": str(settings["registry"]),
        "builder": str(settings["builder"]),
    }


def recorded(project: Project) -> str:
    """Return the stack's state without what is the machine's."""
    text = project.pulumi("stack", "export", "--show-secrets").stdout
    state = json.loads(text)["deployment"]
    state.pop("metadata", None)
    for row in state["resources"]:
        for noise in ("sourcePosition", "stackTrace"):
            row.pop(noise, None)
    text = json.dumps(state, indent=1)
    for name, value in of_the_machine(project).items():
        text = text.replace(value, f"{{{{{name}}}}}")
    return text + "\n"


def without_pods(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return an object of which no pod comes: its image is in no registry, and it would hold the GPU."""
    if inputs["kind"] != "InferenceService":
        return inputs
    spec = inputs["spec"]
    return {**inputs, "spec": {**spec, "predictor": {**spec["predictor"], "minReplicas": 0}}}


def put(project: Project, version: str) -> None:
    """Let the stack have a version's state."""
    text = (STATES / f"{version}.json").read_text()
    for name, value in of_the_machine(project).items():
        text = text.replace(f"{{{{{name}}}}}", value)
    assert not re.findall(r"\{\{[a-zA-Z]+\}\}", text)
    deployment: dict[str, Any] = json.loads(text)
    file = project.folder / "state.json"
    file.write_text(json.dumps({"version": 3, "deployment": deployment}))
    project.pulumi("stack", "import", "--file", str(file))
    for row in deployment["resources"]:
        if row["type"].startswith("kubernetes:") and not row.get("external"):
            # In the cluster too, and as that version's provider made it: a preview applies onto it (dryRun).
            owner = f"--field-manager={row['outputs']['__fieldManager']}"
            text = json.dumps(without_pods(row["inputs"]))
            project.platform.kubectl("apply", "--server-side", owner, "-f", "-", text=text)


@pytest.mark.skipif(not RECORD, reason="a release records its state")
@pytest.mark.usefixtures("gpu_node")
def test_record(dev: Project) -> None:
    dev.up()
    (STATES / f"{RECORD}.json").write_text(recorded(dev))
    released_settings.RELEASED.mkdir(exist_ok=True)
    settings = json.dumps(released_settings.names(), indent=1)
    (released_settings.RELEASED / f"{RECORD}.json").write_text(f"{settings}\n")


def test_a_stack_that_relied_on_a_former_default_is_told_how_to_keep_it(dev: Project) -> None:
    put(dev, VERSIONS[-1])
    dev.configure(serviceName=None)
    result = dev.pulumi("preview", check=False)
    said = result.stdout + result.stderr
    assert result.returncode
    assert f"modelcar:serviceName: not set: the model's name makes it {dev.config['model']}" in said
    assert "fix: pulumi config set modelcar:serviceName tiny" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_of_a_former_version_is_replaced_or_lost(dev: Project, version: str) -> None:
    put(dev, version)
    made: set[str] = set()
    for step in dev.preview():
        kind = step["urn"].split("::")[2].split("$")[-1]
        if step["op"] == "discard" and step["urn"].endswith(f"::{READ}"):
            continue
        if kind == SERVICE:
            assert step["op"] in {"create", "delete"}
            state = step["newState" if step["op"] == "create" else "oldState"]["inputs"]
            assert state["service"] in (SWITCHED_ON if step["op"] == "create" else LEFT)
            assert state["disableOnDestroy"] is False, "the API itself stays on"
            continue
        assert kind != REPOSITORY, "its scanning stays as the project has it"
        assert step["op"] in {"create", "update"}, f"{step['op']} of {step['urn']}"
        assert not kind.startswith("gcp:serviceaccount"), "nodes, and models on them, would be made anew"
        if step["op"] == "create":
            made.add(kind)
    assert made <= NEW

    dev.pulumi("destroy", "--yes")
    assert not dev.has_resources()
    dev.platform.kubectl("wait", "--for=delete", "namespace", dev.namespace, "--timeout=120s")
