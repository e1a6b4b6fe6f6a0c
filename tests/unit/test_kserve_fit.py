"""A KServe that is there, looked at before anything relies on it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from components.cluster import kserve_fit
from components.cluster.access import ClusterError
from local.instance import PROJECT
from modelcar.errors import InputError
from tests.unit.fake_cluster import FakeCluster
from tests.unit.test_components_settings import load

SETTINGS = load()
PATH = "/api/v1/namespaces/kserve/configmaps/inferenceservice-config"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    made = FakeCluster()
    monkeypatch.setattr("components.cluster.access.Cluster.of", lambda _: made)
    return made


def require(cluster: FakeCluster, data: dict[str, str] | None, mode: str = "Standard") -> None:
    cluster.found[PATH] = {"data": data}
    kserve_fit.require(SETTINGS, mode)


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"storageInitializer": "{}"},
        {"storageInitializer": "not JSON"},
        {"storageInitializer": '{"enableModelcar": false}'},
        {"storageInitializer": '{"enableModelcar": "true"}'},
        {"storageInitializer": "[]"},
    ],
)
def test_a_kserve_with_modelcar_off_is_refused(cluster: FakeCluster, data: dict[str, str] | None) -> None:
    with pytest.raises(InputError, match=r"(?s)enableModelcar: .*allowed: true.*fix: .*enableModelcar=true"):
        require(cluster, data)


def kserve_config(**changes: Any) -> dict[str, str]:
    """KServe 0.19's own, with changes."""
    shipped = {"enableModelcar": True, "cpuModelcar": "10m", "memoryModelcar": "15Mi", "uidModelcar": 1010}
    merged = {**shipped, **changes}
    return {"storageInitializer": json.dumps({k: v for k, v in merged.items() if v is not ...})}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"uidModelcar": 1},
        {"uidModelcar": 1000660000},  # OpenShift's
        {"uidModelcar": ...},  # the pod's own user holds
        {"uidModelcar": None},
        {"cpuModelcar": ..., "memoryModelcar": ""},
        {"cpuModelcar": "0", "memoryModelcar": "0.1Gi"},
        {"memoryModelcar": "15e6"},
    ],
)
def test_a_kserve_with_modelcar_on_is_fine(cluster: FakeCluster, changes: dict[str, Any]) -> None:
    require(cluster, kserve_config(**changes))


KNATIVE = {"deploy": json.dumps({"defaultDeploymentMode": "Knative"})}


@pytest.mark.parametrize(
    ("default", "mode", "fits"),
    [
        ("Knative", "Knative", True),
        ("Serverless", "Knative", True),
        ("Standard", "Knative", False),
        (None, "Knative", False),
        ("Knative", "Standard", True),
    ],
)
def test_knative_mode_is_the_clusters_default_or_none(
    cluster: FakeCluster, default: str | None, mode: str, fits: bool
) -> None:
    data = {**kserve_config(), "deploy": json.dumps({"defaultDeploymentMode": default} if default else {})}
    if fits:
        require(cluster, data, mode)
        return
    with pytest.raises(
        InputError, match=r"(?s)deploy.defaultDeploymentMode: .*fix: .*deploymentMode=Knative"
    ):
        require(cluster, data, mode)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("uidModelcar", 0),
        ("uidModelcar", -1),
        ("uidModelcar", 2**31),
        ("uidModelcar", "1010"),
        ("uidModelcar", True),
        ("uidModelcar", 1010.0),
        ("cpuModelcar", "ten"),
        ("cpuModelcar", 1),
        ("memoryModelcar", "15 Mi"),
        ("memoryModelcar", "15"),
    ],
)
def test_a_kserve_whose_modelcar_cannot_run_is_refused(cluster: FakeCluster, name: str, value: Any) -> None:
    with pytest.raises(InputError) as refused:
        require(cluster, kserve_config(**{name: value}))
    said = str(refused.value)
    assert said.startswith(
        f"ConfigMap inferenceservice-config, storageInitializer.{name}: {json.dumps(value)}\n"
    )
    assert "allowed: " in said
    assert f"fix: helm upgrade … --set kserve.storage.{name}=" in said


def test_all_that_is_wrong_with_a_kserve_is_told_at_once(cluster: FakeCluster) -> None:
    with pytest.raises(InputError, match=r"(?s)uidModelcar: 0\n.*memoryModelcar: \"1\"\n"):
        require(cluster, kserve_config(uidModelcar=0, memoryModelcar="1"))


def test_knative_needs_a_user_because_its_pods_have_none(cluster: FakeCluster) -> None:
    with pytest.raises(InputError, match=r"uidModelcar: not set\n.*Knative"):
        require(cluster, kserve_config(uidModelcar=...) | KNATIVE, "Knative")
    require(cluster, kserve_config() | KNATIVE, "Knative")


@pytest.mark.parametrize(
    ("error", "value", "fix"),
    [
        (
            ClusterError(403, "configmaps is forbidden"),
            "forbidden",
            "let it get ConfigMap inferenceservice-config",
        ),
        (ClusterError(401, "Unauthorized"), "Unauthorized", "log in to the cluster again"),
        (ClusterError(0, "it does not answer"), "it does not answer", "try again"),
    ],
)
def test_a_cluster_that_cannot_be_asked_is_refused_with_the_way_round_it(
    cluster: FakeCluster, error: ClusterError, value: str, fix: str
) -> None:
    cluster.refusals[PATH] = error
    with pytest.raises(InputError) as refused:
        kserve_fit.require(SETTINGS, "Standard")
    [problem] = refused.value.problems
    assert problem.key == "ConfigMap kserve/inferenceservice-config"
    assert value in problem.value
    assert fix in problem.fix
    assert "kserve.verify false" in problem.fix


def test_a_namespace_without_kserve_is_named(cluster: FakeCluster) -> None:
    with pytest.raises(
        InputError, match=r"(?s)is not there: https://cluster\.example has no KServe.*kserve\.namespace"
    ):
        kserve_fit.require(SETTINGS, "Standard")


def test_a_program_that_asks_no_cluster_does_not_load_the_client_of_kubernetes() -> None:
    """It takes a quarter of a second, of each preview."""
    told = "import sys, components.stack.delivery; sys.exit('kubernetes' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", told], cwd=PROJECT, check=False).returncode == 0
