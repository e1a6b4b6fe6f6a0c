"""What was made by hand comes into the stack: nothing is made twice or replaced, what is served stays."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from local.preview import DRIFT
from tests.conftest import PROJECT
from tests.engine.conftest import Project
from tests.engine.test_google import dev, in_google

__all__ = ["dev"]

HERE = ("-o", "jsonpath={.items[*].metadata.uid}")
ACCOUNT = "gke-nodes@my-project.iam.gserviceaccount.com"
POLICIES = PROJECT / "policy"
PACK = ("--policy-pack", str(POLICIES))
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
    project.state_file().unlink()
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


@pytest.mark.extended
def test_what_kubectl_applied_comes_into_the_stack_without_a_change(by_kubectl: Project) -> None:
    project = by_kubectl
    pods, services = uids(project, "pods"), uids(project, "inferenceservices")
    refused = project.pulumi("up", "--yes", "--skip-preview", check=False)
    assert refused.returncode
    said = refused.stdout + refused.stderr
    assert re.search("already exists|exists in the cluster already|is there already", said)
    forget(project)

    project.configure(importExisting=["Namespace"], importObjects=[SERVICE, RUNTIME, POLICY])
    shown = steps(project)
    del shown["Image"]
    assert shown == {kind: ["import"] for kind in ("Namespace", SERVICE, RUNTIME, POLICY)}
    project.up()
    assert (uids(project, "pods"), uids(project, "inferenceservices")) == (pods, services)
    project.pulumi("up", "--yes", "--expect-no-changes")
    project.pulumi("refresh", "--yes", "--expect-no-changes")

    # What is this stack's says so; nothing else changes.
    project.configure(importExisting=None, importObjects=None)
    assert {op for ops in steps(project).values() for op in ops} == {"update"}
    told = project.pulumi("preview")
    assert "InferenceService tiny was imported; of it changes" in told.stdout + told.stderr
    assert '~ metadata.labels.app.kubernetes.io/managed-by: "argocd" => "pulumi"' in told.stdout + told.stderr
    project.pulumi("up", "--yes")
    assert uids(project, "inferenceservices") == services
    project.pulumi("preview", "--expect-no-changes")

    # From here on it is like any other.
    project.configure(cpu="150m")
    assert steps(project) == {RUNTIME: ["update"], SERVICE: ["update"]}
    project.pulumi("up", "--yes")
    project.pulumi(*DRIFT)


@pytest.mark.extended
def test_the_runbooks_own_service_is_taken_over_and_never_replaced(project: Project) -> None:
    """As it is after step 3: a custom container with STORAGE_URI, with an image that was built by hand."""
    by_hand = project.up()["storageUri"]
    project.change_weights(seed=5)
    project.platform.kubectl("-n", project.namespace, "delete", "isvc,servingruntime,networkpolicy", "--all")
    project.platform.kubectl("-n", project.namespace, "wait", "--for=delete", "pod", "--all", "--timeout=60s")
    forget(project)
    container = {
        "name": "kserve-container",
        "image": project.platform.server_image,
        "command": project.config["serverCommand"],
        "env": [{"name": "STORAGE_URI", "value": by_hand}],
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

    pods = uids(project, "pods")
    project.configure(importExisting=["Namespace"], importObjects=[SERVICE], placement="storageUriEnv")
    assert steps(project)[SERVICE] == ["import"]
    strict = project.pulumi("preview", *PACK, check=False)
    assert strict.returncode
    assert re.search(r"\[mandatory\] .*no-model-hub", strict.stdout), "as it is, it may ask a hub"
    told = project.pulumi("up", "--yes", *PACK, "--policy-pack-config", str(POLICIES / "advisory.json"))
    assert re.search(r"\[advisory\] .*no-model-hub", told.stdout)
    assert project.up()["storageUri"] == by_hand, "what is served"
    assert (uids(project, "pods"), uids(project, "inferenceservices")) == (pods, service)

    project.configure(importExisting=None, importObjects=None)
    assert steps(project)[SERVICE] == ["update"], "never replaced"
    project.pulumi("up", "--yes", *PACK)
    assert uids(project, "inferenceservices") == service
    assert uids(project, "pods") != pods
    project.pulumi("up", "--yes", "--expect-no-changes")


def test_what_is_to_be_imported_and_is_not_there_fails_and_says_so(project: Project) -> None:
    project.configure(importObjects=[SERVICE])
    refused = project.pulumi("up", "--yes", "--skip-preview", check=False)
    assert refused.returncode
    assert f"resource '{project.namespace}/tiny' does not exist" in refused.stdout + refused.stderr


def made_in_google(dev: Project, **repository: Any) -> dict[str, Any]:
    """Put a repository and its reader into the stand-in's Google, as if gcloud had made them."""
    place = {"project": "my-project", "location": "europe-west4"}
    name = "projects/my-project/locations/europe-west4/repositories/modelcars-dev"
    account = f"serviceAccount:{ACCOUNT}"
    role = "roles/artifactregistry.reader"
    made = {
        name: {
            "type": "gcp:artifactregistry/repository:Repository",
            "state": {
                **place,
                "repositoryId": "modelcars-dev",
                "name": "modelcars-dev",
                "format": "DOCKER",
                "mode": "STANDARD_REPOSITORY",
                **repository,
            },
        },
        f"{name}/{role}/{account}": {
            "type": "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember",
            "state": {**place, "repository": "modelcars-dev", "role": role, "member": account},
        },
    }
    nodes = {
        f"projects/my-project/serviceAccounts/{ACCOUNT}": {
            "type": "gcp:serviceaccount/account:Account",
            "state": {"project": "my-project", "accountId": "gke-nodes", "email": ACCOUNT},
        }
    }
    Path(dev.variables["MODELCAR_GCP_STANDIN"]).write_text(json.dumps({"resources": {**made, **nodes}}))
    return made


#: As this program declares it.
DECLARED = {
    "description": "Modelcars: models as OCI images",
    "dockerConfig": {"immutableTags": True},
    "cleanupPolicies": [
        {"id": "keep-tagged", "action": "KEEP", "condition": {"tagState": "TAGGED"}},
        {
            "id": "delete-untagged",
            "action": "DELETE",
            "condition": {"tagState": "UNTAGGED", "olderThan": "604800s"},
        },
    ],
    "cleanupPolicyDryRun": False,
    "vulnerabilityScanningConfig": {"enablementConfig": "INHERITED"},
    "labels": {"managed-by": "pulumi", "app": "modelcar", "stack": "test"},
    "effectiveLabels": {"managed-by": "pulumi", "app": "modelcar", "stack": "test"},
}


@pytest.mark.extended
@pytest.mark.parametrize("state", [DECLARED, {}], ids=["as declared", "as in the runbook"])
def test_a_repository_and_its_reader_are_taken_over_in_place(dev: Project, state: dict[str, Any]) -> None:
    """What the runbook's is not yet comes to it afterwards: tags get immutable, a cleanup comes."""
    google = dev.config["google"]
    nodes = {**google["nodes"], "serviceAccount": ACCOUNT}
    dev.configure(google={**google, "nodes": nodes}, idle=True)
    made = made_in_google(dev, **state)
    dev.configure(importExisting=["Repository", "RepositoryIamMember"])
    shown = steps(dev)
    assert (shown["Repository"], shown["RepositoryIamMember"]) == (["import"], ["import"])
    dev.up()
    there = in_google(dev)
    assert {name: there[name] for name in made} == made, "not touched"
    dev.pulumi("up", "--yes", "--expect-no-changes")

    dev.configure(importExisting=None)
    assert steps(dev) == ({} if state else {"Repository": ["update"]})
    dev.up()
    [repository, _] = made
    assert in_google(dev)[repository]["state"]["dockerConfig"] == {"immutableTags": True}
    dev.pulumi("up", "--yes", "--expect-no-changes")
