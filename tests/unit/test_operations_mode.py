"""Knative mode on a cluster without Knative is told before anything is built."""

from __future__ import annotations

import pytest

from components.cluster.access import ClusterError
from components.cluster.mode import require
from modelcar.errors import InputError
from tests.unit.fake_cluster import FakeCluster
from tests.unit.test_components_settings import load

GROUP = "/apis/serving.knative.dev/v1"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    made = FakeCluster()
    monkeypatch.setattr("components.cluster.access.Cluster.of", lambda _: made)
    return made


def test_a_cluster_without_knative_is_refused_with_the_fix(cluster: FakeCluster) -> None:
    with pytest.raises(InputError, match="has no Knative Serving") as raised:
        require(load(deploymentMode="Knative"), reachable=True)
    assert "install Knative Serving" in str(raised.value)
    cluster.found[GROUP] = {"kind": "APIResourceList"}
    require(load(deploymentMode="Knative"), reachable=True)


def test_what_needs_no_knative_asks_nobody(cluster: FakeCluster) -> None:
    cluster.refusals[GROUP] = ClusterError(0, "it does not answer")
    require(load(), reachable=True)
    require(load(deploymentMode="Knative"), reachable=False)
    require(load(deploymentMode="Knative", kserve={"install": True}), reachable=True)
    with pytest.raises(InputError, match="cannot be asked for it: it does not answer"):
        require(load(deploymentMode="Knative"), reachable=True)
