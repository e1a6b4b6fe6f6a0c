"""A cluster that is there: by which endpoint a stack reaches it, run for run, and which are refused."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pulumi
import pytest

from components.config.models import load_stack
from components.config.stack import Stack
from components.google.adopted_cluster import adopted, require_adopted
from components.stack.outputs import _is_there as is_there
from components.stack.preflight import endpoint_of, registry_is_there
from modelcar.errors import InputError, Problem
from tests.unit.test_google_settings import CLUSTER, PROJECT, as_texts, dev
from tests.unit.test_referenced_cluster import REFERENCE, TOLD
from tests.unit.test_referenced_cluster import stack as referring

NAMED = {CLUSTER + "create": None, CLUSTER + "name": "shared", CLUSTER + "location": "europe-west4-b"}
#: Of the last run, which an earlier version made.
BEFORE = {"clusterName": "shared", "clusterLocation": "europe-west4-b"}


def stack(**changes: Any) -> Stack:
    return load_stack(as_texts(dev(**{**NAMED, **changes})), PROJECT)


def control_plane(*, outside: bool = True, address: bool = True) -> list[Any]:
    dns = SimpleNamespace(endpoint="gke-1.europe-west4.gke.goog", allow_external_traffic=outside)
    ip = SimpleNamespace(enabled=address)
    return [SimpleNamespace(dns_endpoint_configs=[dns], ip_endpoints_configs=[ip])]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What Google says of the cluster, as a test changes it; `asked` is what it is asked for."""
    found = SimpleNamespace(
        master_version="1.35.7-gke.1150000",
        control_plane_endpoints_configs=control_plane(),
        enable_autopilot=False,
        workload_identity_configs=[SimpleNamespace(workload_pool="my-project.svc.id.goog")],
        asked=[],
    )

    def get(**arguments: Any) -> SimpleNamespace:
        found.asked.append(arguments)
        return found

    monkeypatch.setattr("pulumi_gcp.container.get_cluster", get)
    return found


def refused(found: Stack, endpoint: Any = "auto") -> Problem:
    assert found.shared.google
    with pytest.raises(InputError) as caught:
        require_adopted(found.shared.google, endpoint)
    [problem] = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("outputs", "changes", "endpoint"),
    [
        ({}, {}, "auto"),
        (BEFORE, {}, "ip"),
        ({**BEFORE, "clusterEndpoint": "ip"}, {}, "ip"),
        ({**BEFORE, "clusterEndpoint": "dns"}, {}, "dns"),
        # Another cluster than before: all that is in it is made anew anyway.
        ({**BEFORE, "clusterName": "other"}, {}, "auto"),
        ({**BEFORE, "clusterLocation": "europe-west4"}, {}, "auto"),
        # The stack says itself how it is reached.
        (BEFORE, {"kubeContext": "x"}, "auto"),
        (BEFORE, {"kubeconfig": "/x"}, "auto"),
    ],
)
def test_a_cluster_is_reached_as_in_the_last_run(
    outputs: dict[str, Any], changes: dict[str, Any], endpoint: str
) -> None:
    """In a former version's state Pulumi takes another address for another cluster."""
    found = stack(**changes)
    assert endpoint_of(found, outputs) == endpoint
    assert endpoint_of(referring(**changes).at_cluster(TOLD), outputs) == endpoint


def test_a_cluster_that_lost_the_address_it_was_reached_by_is_refused(cluster: SimpleNamespace) -> None:
    google = stack().shared.google
    assert google
    assert require_adopted(google, "ip")
    cluster.control_plane_endpoints_configs = control_plane(address=False)
    assert require_adopted(google, "auto"), "a stack that has nothing in it yet"
    problem = refused(stack(), "ip")
    assert problem.key == "modelcar:google.cluster.name"
    assert "may make all of that anew" in problem.value
    assert "clusters update shared --location=europe-west4-b --project=my-project --enable-ip" in problem.fix
    assert "modelcar:kubeContext to gke_my-project_europe-west4-b_shared" in problem.fix


@pytest.mark.parametrize("found", [stack(), referring().at_cluster(TOLD)], ids=["name", "stackReference"])
def test_a_cluster_that_takes_no_pools_is_refused_in_a_preview(
    cluster: SimpleNamespace, found: Stack
) -> None:
    cluster.enable_autopilot = True
    problem = refused(found)
    assert problem.key.startswith("modelcar:google.cluster.")
    assert problem.value == "shared, an Autopilot cluster, which takes no node pools"
    assert "modelcar:kubeContext" in problem.fix


@pytest.mark.parametrize("configs", [[], [SimpleNamespace(workload_pool="")]])
def test_a_cluster_without_workload_identity_is_refused_with_the_command(
    cluster: SimpleNamespace, configs: list[Any]
) -> None:
    cluster.workload_identity_configs = configs
    problem = refused(stack())
    assert "no Workload Identity Federation" in problem.value
    command = "gcloud container clusters update shared --location=europe-west4-b --project=my-project"
    assert problem.fix == f"{command} --workload-pool=my-project.svc.id.goog"


def test_the_cluster_of_another_stack_is_asked_for_too(cluster: SimpleNamespace) -> None:
    found = referring()
    assert found.shared.google
    assert require_adopted(found.shared.google) is None, "nobody knows which one it is"
    known = found.at_cluster(TOLD).shared.google
    assert known
    assert require_adopted(known) == "1.35.7-gke.1150000"
    assert cluster.asked == [{"name": "shared", "location": "europe-west4-b", "project": "my-project"}]


def test_a_cluster_of_another_stack_that_is_not_there_is_told_by_its_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def get(**_: Any) -> Any:
        raise Exception("invocation failed:\nError 404: Not found")

    monkeypatch.setattr("pulumi_gcp.container.get_cluster", get)
    problem = refused(referring().at_cluster(TOLD))
    assert problem.key == "modelcar:google.cluster.stackReference"
    assert problem.value.endswith("clusters/shared: Error 404: Not found")
    assert "outputs of that stack" in problem.fix
    assert REFERENCE not in problem.value


def test_a_cluster_that_was_not_reached_is_not_told_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run would take it for a former version's, whose objects were made by the address."""
    google = stack().shared.google
    assert google
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: False)

    def fails(_: str) -> Any:
        raise RuntimeError("this account may not")

    async def told() -> list[bool]:
        broken = pulumi.Output.from_input("").apply(fails)
        found = SimpleNamespace(control_plane_endpoints_configs=broken, endpoint=broken, master_auths=broken)
        monkeypatch.setattr("pulumi_gcp.container.get_cluster_output", lambda **_: found)
        cluster = adopted(google, "auto")
        return [await is_there(one) for one in (cluster.name, cluster.location, cluster.endpoint)]

    assert asyncio.run(told()) == [False] * 3


REGISTRY = "europe-west4-docker.pkg.dev/my-project/modelcars-dev"


@pytest.mark.parametrize(
    ("outputs", "changes", "there"),
    [
        ({}, {}, False),
        ({"registry": REGISTRY}, {}, True),
        ({"registry": REGISTRY.replace("dev", "old")}, {}, False),
        ({}, {"google.repository.existing": True}, True),
        ({}, {"importExisting": ["Repository"]}, True),
        ({}, {"registry": "registry.example/models"}, True),
    ],
)
def test_a_registry_of_the_stacks_own_is_there_once_a_run_told_it(
    outputs: dict[str, Any], changes: dict[str, Any], there: bool
) -> None:
    found = stack(**changes)
    assert registry_is_there(found, outputs) is there
