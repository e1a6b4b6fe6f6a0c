"""Examples with mocks, for what tests with the real CLI do not come to."""

from __future__ import annotations

import importlib
import runpy
from pathlib import Path
from typing import Any

import pulumi
import pytest

from modelcar.__main__ import main
from tests.conftest import PROJECT
from tests.unit.mocked_engine import DIGEST, Declared, Engine
from tests.unit.mocked_engine import OUTPUTS as PROVIDED
from tests.unit.test_outputs import MODEL, OUTPUTS


@pytest.fixture
def declared(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Declared]:
    """What `own-resources` declares, with the package as the wheel has it."""
    assert main(["tiny", str(tmp_path / "weights")]) == 0
    assert main(["lock", "chat", "--folder", str(tmp_path / "weights")], project=tmp_path) == 0
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(package))
    importlib.import_module("modelcar_kserve")
    engine = Engine(preview=True)

    def program() -> dict[str, pulumi.Output[Any]]:
        image = f"docker.io/vllm/vllm-openai:v0.23.0@{DIGEST}"
        pulumi.runtime.set_all_config({"gcp:project": "acme-models", "project:serverImage": image})
        runpy.run_path(str(PROJECT / "examples/own-resources/__main__.py"))
        return {}

    engine.run(program)
    return engine.declared


@pytest.mark.parametrize("sizes", [[], [10, 7]])
def test_a_consumer_reads_a_stack_that_has_no_models_too(
    package: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int]
) -> None:
    models = {f"m{size}": {**MODEL, "modelBytes": size, "servedModelName": f"m{size}"} for size in sizes}
    answer = {"outputs": {**OUTPUTS, "models": models}, "secretOutputNames": []}
    monkeypatch.setitem(PROVIDED, "pulumi:pulumi:StackReference", answer)
    monkeypatch.syspath_prepend(str(package))
    importlib.import_module("modelcar_kserve")

    def program() -> dict[str, pulumi.Output[Any]]:
        exported: dict[str, pulumi.Output[Any]] = {}
        monkeypatch.setattr(pulumi, "export", exported.__setitem__)
        pulumi.runtime.set_all_config({"project:modelStack": "acme/models/prod"})
        runpy.run_path(str(PROJECT / "examples/consumer/__main__.py"))
        return exported

    told = Engine(preview=False).run(program)
    assert told["largestModelBytes"] == max([*sizes, 0])
    assert set(told["routes"]) == set(models)


def of(declared: list[Declared], kind: str) -> list[Declared]:
    return [one for one in declared if one.type.endswith(kind)]


def test_a_cluster_of_ones_own_takes_the_pools_and_runs_what_models_need(declared: list[Declared]) -> None:
    [cluster] = of(declared, "container/cluster:Cluster")
    made = of(declared, "nodePool:NodePool")
    pools = {one.urn.rpartition(":")[2]: one.inputs for one in made}
    assert set(pools) == {"gpu", "system"}
    assert all(cluster.urn in one.dependencies for one in made)
    assert pools["gpu"]["nodeConfig"]["workloadMetadataConfig"]["mode"] == "GKE_METADATA"
    # https://cloud.google.com/kubernetes-engine/docs/how-to/workload-identity#enable_on_clusters_and_node_pools
    assert cluster.inputs["workloadIdentityConfig"] == {"workloadPool": "acme-models.svc.id.goog"}
    assert cluster.inputs["removeDefaultNodePool"] is True
    system = pools["system"]
    assert system["nodeCount"] >= 1
    assert "taints" not in system["nodeConfig"]
    assert "guestAccelerators" not in system["nodeConfig"]


def test_the_cluster_is_known_whatever_becomes_of_its_address(declared: list[Declared]) -> None:
    [cluster] = of(declared, "pulumi:providers:kubernetes")
    assert cluster.inputs["clusterIdentifier"] == "models.gke.goog"


def test_kserve_is_there_before_the_model_and_has_nodes_to_run_on(declared: list[Declared]) -> None:
    releases = of(declared, "helm.sh/v3:Release")
    assert {one.inputs["name"] for one in releases} == {"cert-manager", "kserve-crd", "kserve"}
    [system] = [one for one in of(declared, "nodePool:NodePool") if one.urn.endswith("::system")]
    for release in releases:
        assert system.urn in release.dependencies
    [service] = of(declared, ":InferenceService")
    assert {one.urn for one in releases} <= set(service.dependencies)
    [readable] = of(declared, "RepositoryIamMember")
    assert readable.urn in service.dependencies
