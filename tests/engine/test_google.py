"""The whole dev stack by the real engine: Google's side against the stand-in, the rest on the real platform.

The image goes to the platform's registry, and Kubernetes parts to its cluster, whose node has a GPU in name
where pods are to run. No Google project could be had, so the stand-in is as far as this goes; with the
official plugin on the machine these tests are skipped: they would create real things.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import gpus_in_name
from tests.conftest import PROJECT, Platform
from tests.engine.conftest import Project

pytestmark = pytest.mark.skipif(
    shutil.which("pulumi-resource-gcp") is not None, reason="the official gcp plugin would reach Google"
)

DESIGN_CARD = {
    "modelcar:google:ModelRegistry": "gcp:artifactregistry/repository:Repository",
    "modelcar:google:GpuNodePool": "gcp:container/nodePool:NodePool",
    "modelcar:kserve:ModelcarImage": "docker-build:index:Image",
    "modelcar:kserve:ModelService": "kubernetes:serving.kserve.io/v1beta1:InferenceService",
}


@pytest.fixture
def dev(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The dev stack with the registry, cluster and server of the platform in place of Google's."""
    config = yaml.safe_load((PROJECT / "Pulumi.dev.yaml").read_text())["config"]
    settings = project.platform.settings
    project.config = {key.removeprefix("modelcar:"): value for key, value in config.items()} | {
        **{
            key: settings[key]
            for key in ("registry", "registryInsecure", "builder", "architecture", "kubeconfig")
        },
        **{key: project.config[key] for key in ("model", "serviceName", "namespace")},
        **{
            key: project.config[key]
            for key in ("serverCommand", "serverArgs", "cpu", "memory", "sharedMemory")
        },
        "serverImage": settings["serverImage"],
        "startTimeoutSeconds": 120,
        "kserve": {"install": False},
    }
    del project.config["vllm"]  # the tiny model was made for fewer tokens, and no vLLM reads them
    project.configure()
    project.variables["MODELCAR_GCP_STANDIN"] = str(project.folder / "google.json")
    project.variables["PATH"] = f"{project.platform.shell['PATH']}:{PROJECT / 'local/standins/bin'}"
    return project


@pytest.fixture
def gpu_node(platform: Platform) -> Iterator[None]:
    """Let the stack's pods run; all workers share the node and its GPU, so only this file's tests take it."""
    with gpus_in_name.of_a_pool(platform, "gpu"):
        yield


def in_google(project: Project) -> dict[str, Any]:
    """Return what the stand-in's Google has, by resource name."""
    path = Path(project.variables["MODELCAR_GCP_STANDIN"])
    found: dict[str, Any] = json.loads(path.read_text())["resources"]
    return found


def types(steps: list[dict[str, Any]]) -> dict[str, set[str]]:
    """Return the operations on each type."""
    found: dict[str, set[str]] = {}
    for step in steps:
        found.setdefault(step["urn"].split("::")[2].split("$")[-1], set()).add(step["op"])
    return found


#: Of a stack that a version before 0.4.0 made in the same project.
OTHERS = "projects/my-project/serviceAccounts/modelcar-nodes@my-project.iam.gserviceaccount.com"


@pytest.mark.usefixtures("gpu_node")
def test_the_dev_stack_lives_and_dies(dev: Project) -> None:
    account = {"accountId": "modelcar-nodes", "project": "my-project"}
    there = {OTHERS: {"type": "gcp:serviceaccount/account:Account", "state": account}}
    Path(dev.variables["MODELCAR_GCP_STANDIN"]).write_text(json.dumps({"resources": there}))
    first = dev.preview()
    chains = {step["urn"].split("::")[2] for step in first}
    for component, resource in DESIGN_CARD.items():
        assert any(component in chain and chain.endswith(resource) for chain in chains), component
    assert any("ModelRegistry$gcp:artifactregistry/repositoryIamMember" in chain for chain in chains)
    assert {op for ops in types(first).values() for op in ops} == {"create"}

    outputs = dev.up()
    assert re.fullmatch(r"oci://\S+@sha256:[0-9a-f]{64}", outputs["storageUri"])
    assert outputs["models"]["tiny"]["nodePool"] == "gpu"
    assert outputs["nodePools"] == {"gpu": {"diskGb": 200}}
    assert outputs["clusterEndpoint"] == "dns"
    assert outputs["nodeServiceAccount"].startswith("modelcar-test-nodes@"), "of this stack alone"
    names = "\n".join(in_google(dev))
    for part in ("repositories/modelcars-dev", "clusters/models-dev", "nodePools/gpu"):
        assert part in names

    assert dev.preview() == []
    dev.pulumi("up", "--yes", "--expect-no-changes")
    dev.pulumi("refresh", "--yes", "--expect-no-changes")

    dev.change_weights(seed=3)
    changed = types(dev.preview())
    assert changed["docker-build:index:Image"] == {"update"}
    assert changed["kubernetes:serving.kserve.io/v1beta1:InferenceService"] == {"update"}
    assert not any(kind.startswith("gcp:") for kind in changed), "new weights change nothing in Google"
    assert dev.up()["modelDigest"] != outputs["modelDigest"]

    google = dev.config["google"]
    dev.configure(google={**google, "nodes": {**google["nodes"], "maxNodes": 2}})
    assert types(dev.preview()) == {"gcp:container/nodePool:NodePool": {"update"}}
    dev.configure(google={**google, "nodes": {**google["nodes"], "provisioning": "on-demand"}})
    shown = json.loads(dev.pulumi("preview", "--json").stdout)
    assert "replace" in types(shown["steps"])["gcp:container/nodePool:NodePool"], "spot is fixed for a pool"
    said = " ".join(entry["message"] for entry in shown["diagnostics"])
    assert "REPLACED: pool gpu (provisioning spot → not spot)" in said
    assert "tiny stops until new nodes serve" in said
    dev.configure(google=google)

    dev.pulumi("destroy", "--yes")
    left = {name for name in in_google(dev) if "/services/" not in name and "googleapis.com" not in name}
    assert left == {OTHERS}, "the APIs stay on, and nothing else of this stack"


@pytest.mark.extended
@pytest.mark.usefixtures("gpu_node")
def test_a_protected_stack_is_not_destroyed(dev: Project) -> None:
    dev.configure(google={**dev.config["google"], "protect": True})
    dev.up()
    refused = dev.pulumi("destroy", "--yes", check=False)
    assert refused.returncode
    assert "protected" in refused.stdout + refused.stderr
    assert any("repositories/modelcars-dev" in name for name in in_google(dev))
    dev.pulumi("state", "unprotect", "--all", "--yes")
    dev.configure(google={**dev.config["google"], "protect": False})
    dev.up()


def test_what_is_adopted_and_not_there_is_refused_before_anything_is_declared(dev: Project) -> None:
    google = dev.config["google"]
    account = "absent@my-project.iam.gserviceaccount.com"
    dev.configure(
        google={
            **google,
            "cluster": {"name": "absent", "location": "europe-west4-b"},
            "repository": {"name": "absent", "existing": True},
            "nodes": {**google["nodes"], "serviceAccount": account},
        }
    )
    result = dev.pulumi("preview", check=False)
    said = result.stdout + result.stderr
    place = "projects/my-project/locations/europe-west4"
    assert result.returncode
    assert f"modelcar:google.cluster.name: {place}-b/clusters/absent" in said
    assert f"modelcar:google.repository.name: {place}/repositories/absent" in said
    assert f"modelcar:google.nodes.serviceAccount: {account}" in said
    assert "fix: " in said
    assert "Traceback" not in said


#: A cluster as this program makes them, which another stack made: it has a DNS name, and no address.
CLOSED: dict[str, Any] = {
    "type": "gcp:container/cluster:Cluster",
    "state": {
        "masterVersion": "1.35.7-gke.1150000",
        "workloadIdentityConfig": {"workloadPool": "my-project.svc.id.goog"},
        "controlPlaneEndpointsConfig": {
            "dnsEndpointConfig": {"endpoint": "gke-1.europe-west4.gke.goog", "allowExternalTraffic": True},
            "ipEndpointsConfig": {"enabled": False},
        },
    },
}


def test_an_autopilot_cluster_is_refused_in_a_preview(dev: Project) -> None:
    place = "projects/my-project/locations/europe-west4-b/clusters/auto"
    auto = {**CLOSED, "state": {**CLOSED["state"], "enableAutopilot": True}}
    Path(dev.variables["MODELCAR_GCP_STANDIN"]).write_text(json.dumps({"resources": {place: auto}}))
    dev.configure(google={**dev.config["google"], "cluster": {"name": "auto", "location": "europe-west4-b"}})
    result = dev.pulumi("preview", check=False)
    said = result.stdout + result.stderr
    assert result.returncode
    assert "modelcar:google.cluster.name: auto, an Autopilot cluster, which takes no node pools" in said
    assert "Traceback" not in said


def test_a_driver_that_is_too_old_for_the_server_is_refused_in_a_preview(dev: Project) -> None:
    google = dev.config["google"]
    place = "projects/my-project/locations/europe-west4-b/clusters/old"
    old = {**CLOSED, "state": {**CLOSED["state"], "masterVersion": "1.33.5-gke.1162000"}}
    Path(dev.variables["MODELCAR_GCP_STANDIN"]).write_text(json.dumps({"resources": {place: old}}))
    committed = yaml.safe_load((PROJECT / "Pulumi.dev.yaml").read_text())["config"]
    dev.configure(
        google={**google, "cluster": {"name": "old", "location": "europe-west4-b"}},
        serverImage=committed["modelcar:serverImage"],
    )
    result = dev.pulumi("preview", check=False)
    said = result.stdout + result.stderr
    assert result.returncode
    assert "modelcar:google.nodes.driver: DEFAULT, which is R535 on GKE 1.33.5-gke.1162000" in said
    assert "needs a driver of R580" in said
    assert "Traceback" not in said


def named_by_another_stack(project: Project, outputs: dict[str, str]) -> str:
    """Make a stack that tells outputs, and return its name."""
    other = replace(project, stack="clusters")
    other.configure()
    other.pulumi("stack", "init")
    name = yaml.safe_load((PROJECT / "Pulumi.yaml").read_text())["name"]
    kind = "pulumi:pulumi:Stack"
    row = {"urn": f"urn:pulumi:clusters::{name}::{kind}::{name}-clusters", "type": kind, "outputs": outputs}
    file = project.folder / "clusters.json"
    file.write_text(json.dumps({"version": 3, "deployment": {"resources": [{**row, "custom": False}]}}))
    other.pulumi("stack", "import", "--file", str(file))
    return f"organization/{name}/clusters"


def test_a_cluster_that_another_stack_made_without_an_address_is_reached_by_its_name(dev: Project) -> None:
    place = "projects/my-project/locations/europe-west4-b/clusters/closed"
    Path(dev.variables["MODELCAR_GCP_STANDIN"]).write_text(json.dumps({"resources": {place: CLOSED}}))
    told = {"clusterName": "closed", "clusterLocation": "europe-west4-b"}
    reference = named_by_another_stack(dev, told)
    google = {**dev.config["google"], "cluster": {"stackReference": reference}}
    dev.configure(google=google, kubeconfig=None)
    steps = {step["urn"].rpartition("::")[2]: step for step in dev.preview()}
    kubeconfig = json.loads(steps["cluster"]["newState"]["inputs"]["kubeconfig"])
    assert kubeconfig["clusters"] == [
        {"name": "closed", "cluster": {"server": "https://gke-1.europe-west4.gke.goog"}}
    ], "and no authority but the public ones"
    assert steps["cluster"]["newState"]["inputs"]["clusterIdentifier"] == "gke-1.europe-west4.gke.goog"
    assert steps["modelcar-gpu"]["newState"]["inputs"]["cluster"] == "closed"

    dev.configure(google={**google, "cluster": {"stackReference": f"{reference}-none"}})
    result = dev.pulumi("preview", check=False)
    said = result.stdout + result.stderr
    assert result.returncode
    assert f"modelcar:google.cluster.stackReference: {reference}-none: " in said
    assert "so it is not known which cluster to ask" in said
    assert "Traceback" not in said


def test_settings_for_faster_starts_pass_the_providers_checks(dev: Project) -> None:
    google = dev.config["google"]
    faster = {
        "imageStreaming": True,
        "secondaryBootDisk": "global/images/qwen",
        "localSsds": 1,
        "parallelPulls": 5,
    }
    dev.configure(google={**google, "nodes": {**google["nodes"], **faster}})
    [pool] = [
        step["newState"]["inputs"]
        for step in dev.preview()
        if step["urn"].endswith("gcp:container/nodePool:NodePool::modelcar-gpu")
    ]
    config = pool["nodeConfig"]
    assert config["secondaryBootDisks"] == [
        {"diskImage": "global/images/qwen", "mode": "CONTAINER_IMAGE_CACHE"}
    ]
    assert config["ephemeralStorageLocalSsdConfig"] == {"localSsdCount": 1}
    assert config["kubeletConfig"]["maxParallelImagePulls"] == 5
    assert config["gcfsConfig"] == {"enabled": True}


@pytest.mark.extended
def test_each_model_gets_a_pool_that_can_take_it(dev: Project) -> None:
    google = dev.config["google"]
    large = {"name": "large", "gpu": "nvidia-l4", "gpusPerNode": 2, "machineType": "g2-standard-24"}
    models = [
        {"name": "small", "model": dev.config["model"], "imageName": "small"},
        {"name": "wide", "model": dev.config["model"], "imageName": "wide", "gpuCount": 2},
    ]
    dev.configure(google={**google, "pools": [large]}, models=models, model=None, serviceName=None)
    steps = {step["urn"].rpartition("::")[2]: step for step in dev.preview()}
    for name, pool, gpus in (("modelcar-gpu", "gpu", 1), ("modelcar-gpu-large", "large", 2)):
        inputs = steps[name]["newState"]["inputs"]
        assert inputs["name"] == pool
        assert inputs["nodeConfig"]["guestAccelerators"][0]["count"] == gpus
    for name, pool in (("small", "gpu"), ("wide", "large")):
        [service] = [
            step["newState"]["inputs"]["spec"]["predictor"]
            for step in dev.preview()
            if step["urn"].endswith(f":InferenceService::{name}")
        ]
        assert service["nodeSelector"] == {"cloud.google.com/gke-nodepool": pool}
