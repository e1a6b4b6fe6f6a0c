"""What was made by hand comes into the stack: nothing is made twice or replaced, what is served stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.engine.conftest import Project
from tests.engine.test_google import dev, in_google

__all__ = ["dev"]

HERE = ("-o", "jsonpath={.items[*].metadata.uid}")
SERVICE, RUNTIME, POLICY = "InferenceService", "ServingRuntime", "NetworkPolicy"


def steps(project: Project) -> dict[str, list[str]]:
    """Return what a preview would do, by the resource's type, components left out."""
    found: dict[str, list[str]] = {}
    for step in project.preview():
        kind = step["urn"].split("::")[2].split("$")[-1]
        if not kind.startswith(("modelcar:", "pulumi:")):
            found.setdefault(kind.split(":")[-1], []).append(step["op"])
    return found


def forget(project: Project) -> None:
    """Let the stack know of nothing, as if all had been made by hand."""
    [state] = (project.folder / ".state").glob(".pulumi/stacks/*/test.json")
    state.unlink()
    (project.folder / "Pulumi.test.yaml").unlink()
    project.pulumi("stack", "init")
    project.configure()


def uids(project: Project, kind: str) -> str:
    return project.platform.kubectl("-n", project.namespace, "get", kind, *HERE)


@pytest.fixture
def by_kubectl(project: Project, tmp_path: Path) -> Project:
    """A model whose objects this program wrote as YAML, and somebody applied with kubectl."""
    folder = tmp_path / "deploy"
    project.configure(delivery="gitops", gitops={"folder": str(folder)})
    project.up()
    project.platform.kubectl("create", "namespace", project.namespace)
    project.platform.kubectl("apply", "-f", str(folder))
    ready = ("wait", "--for=condition=Ready", "--timeout=120s", "isvc/tiny")
    project.platform.kubectl("-n", project.namespace, *ready)
    project.configure(delivery="cluster", gitops=None)
    forget(project)
    return project


def test_what_kubectl_applied_comes_into_the_stack_without_a_change(by_kubectl: Project) -> None:
    project = by_kubectl
    pods, services = uids(project, "pods"), uids(project, "inferenceservices")
    refused = project.pulumi("up", "--yes", "--skip-preview", check=False)
    assert refused.returncode
    assert "already exists" in refused.stdout + refused.stderr
    forget(project)

    project.configure(importExisting=["Namespace"], importObjects=[SERVICE, RUNTIME, POLICY])
    shown = steps(project)
    assert {kind: ops[0] for kind, ops in shown.items() if kind != "Image"} == dict.fromkeys(
        ["Namespace", SERVICE, RUNTIME, POLICY], "import"
    )
    project.up()
    assert (uids(project, "pods"), uids(project, "inferenceservices")) == (pods, services)
    project.configure(importExisting=None, importObjects=None)
    project.pulumi("up", "--yes", "--expect-no-changes")
    project.pulumi("refresh", "--yes", "--expect-no-changes")


def test_the_runbooks_own_service_is_taken_over_and_never_replaced(project: Project) -> None:
    """As it is after step 3: a custom container with STORAGE_URI, with an image that was built by hand."""
    outputs = project.up()
    project.platform.kubectl("-n", project.namespace, "delete", "isvc,servingruntime,networkpolicy", "--all")
    project.platform.kubectl("-n", project.namespace, "wait", "--for=delete", "pod", "--all", "--timeout=60s")
    forget(project)
    container = {
        "name": "kserve-container",
        "image": project.platform.server_image,
        "command": project.config["serverCommand"],
        "env": [{"name": "STORAGE_URI", "value": outputs["storageUri"]}],
        "ports": [{"containerPort": 8080}],
        "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"cpu": "1", "memory": "64Mi"}},
    }
    document = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": SERVICE,
        "metadata": {
            "name": "tiny",
            "namespace": project.namespace,
            "annotations": {"serving.kserve.io/deploymentMode": "Standard"},
        },
        "spec": {"predictor": {"minReplicas": 1, "containers": [container]}},
    }
    project.platform.kubectl("apply", "-f", "-", text=json.dumps(document))
    ready = ("wait", "--for=condition=Ready", "--timeout=120s", "isvc/tiny")
    project.platform.kubectl("-n", project.namespace, *ready)
    service = uids(project, "inferenceservices")

    project.configure(importExisting=["Namespace"], importObjects=[SERVICE], placement="storageUriEnv")
    operations = steps(project)
    assert set(operations[SERVICE]) <= {"import", "update"}, "never replaced"
    assert operations[SERVICE][0] == "import"
    project.up()
    assert uids(project, "inferenceservices") == service
    project.configure(importExisting=None, importObjects=None)
    project.pulumi("up", "--yes", "--expect-no-changes")


def test_what_is_to_be_imported_and_is_not_there_fails_and_says_so(project: Project) -> None:
    project.configure(importObjects=[SERVICE])
    refused = project.pulumi("up", "--yes", "--skip-preview", check=False)
    assert refused.returncode
    assert f"resource '{project.namespace}/tiny' does not exist" in refused.stdout + refused.stderr


def repository_and_grant(google: dict[str, Any]) -> dict[str, Any]:
    return {name: entry for name, entry in google.items() if "/repositories/" in name}


def test_a_repository_and_its_reader_come_into_the_stack_without_a_change(dev: Project) -> None:
    dev.up()
    before = repository_and_grant(in_google(dev))
    assert len(before) == 2
    [state] = (dev.folder / ".state").glob(".pulumi/stacks/*/test.json")
    kept = json.loads(state.read_text())
    rows = kept["checkpoint"]["latest"]["resources"]
    gone = {row["urn"] for row in rows if "ModelRegistry" in row["urn"].split("::")[2]}
    kept["checkpoint"]["latest"]["resources"] = [row for row in rows if row["urn"] not in gone]
    text = json.dumps(kept)
    state.write_text(text)

    dev.configure(importExisting=["Repository", "RepositoryIamMember"])
    shown = steps(dev)
    assert shown == {"Repository": ["import"], "RepositoryIamMember": ["import"]}
    dev.up()
    assert repository_and_grant(in_google(dev)) == before
    dev.configure(importExisting=None)
    dev.pulumi("up", "--yes", "--expect-no-changes")


def test_a_repository_as_the_runbook_has_it_is_changed_in_place(dev: Project) -> None:
    """Docker format and nothing else: tags get immutable, a cleanup comes, and no image is touched."""
    dev.up()
    path = Path(dev.variables["MODELCAR_GCP_STANDIN"])
    cloud = yaml.safe_load(path.read_text())
    [repository] = [name for name in cloud["resources"] if name.endswith("/repositories/modelcars-dev")]
    for key in ("cleanupPolicies", "dockerConfig", "description"):
        cloud["resources"][repository]["state"].pop(key, None)
    path.write_text(json.dumps(cloud))
    text = dev.pulumi("stack", "export").stdout
    state = json.loads(text)
    state["deployment"]["resources"] = [
        row for row in state["deployment"]["resources"] if "ModelRegistry" not in row["urn"].split("::")[2]
    ]
    file = dev.folder / "state.json"
    file.write_text(json.dumps(state))
    dev.pulumi("stack", "import", "--force", "--file", str(file))

    dev.configure(importExisting=["Repository", "RepositoryIamMember"])
    shown = steps(dev)
    assert set(shown["Repository"]) == {"import", "update"}
    assert shown["RepositoryIamMember"] == ["import"]
    dev.up()
    assert in_google(dev)[repository]["state"]["dockerConfig"] == {"immutableTags": True}
