"""The cluster's provider is alike in every checkout; what is not, is said."""

from __future__ import annotations

import os
from typing import Any

import pulumi
import pytest

from components.config.models import load_stack
from components.google.cloud import GoogleCloud, GoogleCloudArgs
from components.kserve.cluster_provider import CAPTURED, cluster_provider, doubts
from components.stack import delivery
from components.stack.preflight import CheckedStack
from tests.unit import mocked_engine
from tests.unit.mocked_engine import Engine
from tests.unit.test_google_settings import CLUSTER, PROJECT, as_texts, dev

#: What the SDK takes from the environment where a program says nothing (pulumi_kubernetes/provider.py).
VARIABLES = {
    "KUBECONFIG": "/home/somebody/.kube/config",
    "PULUMI_K8S_DELETE_UNREACHABLE": "true",
    "PULUMI_K8S_ENABLE_CONFIGMAP_MUTABLE": "true",
    "PULUMI_K8S_ENABLE_PATCH_FORCE": "true",
    "PULUMI_K8S_ENABLE_SECRET_MUTABLE": "true",
    "PULUMI_K8S_ENABLE_SERVER_SIDE_APPLY": "false",
    "PULUMI_K8S_SKIP_UPDATE_UNREACHABLE": "true",
    "PULUMI_K8S_SUPPRESS_DEPRECATION_WARNINGS": "true",
    "PULUMI_K8S_SUPPRESS_HELM_HOOK_WARNINGS": "true",
    "PULUMI_K8S_UPSERT_EXISTING_OBJECTS": "true",
}


def inputs(kubeconfig: str | None, context: str | None = None) -> dict[str, Any]:
    engine = Engine(preview=True)

    def program() -> dict[str, pulumi.Output[Any]]:
        cluster_provider("cluster", kubeconfig, context)
        return {}

    engine.run(program)
    return engine.the("kubernetes").inputs


def test_nothing_of_the_machine_is_among_its_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(CAPTURED)]:
        monkeypatch.delenv(name)
    elsewhere = inputs(None), inputs("/a/path", "a-context")
    assert elsewhere[0] == {"enableServerSideApply": "true"}
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    assert (inputs(None), inputs("/a/path", "a-context")) == elsewhere
    assert elsewhere[1]["kubeconfig"] == "/a/path"
    for name, value in VARIABLES.items():
        assert os.environ[name] == value, "the plugin and kubectl read it as before"


def test_the_sdk_takes_no_other_variables() -> None:
    """A new one would be a machine's, too."""
    import inspect
    import re

    import pulumi_kubernetes.provider as sdk

    taken = set(re.findall(r"get_env\w*\('(\w+)'", inspect.getsource(sdk)))
    assert taken == set(VARIABLES)


def test_docker_host_is_told() -> None:
    assert list(doubts({})) == []
    [said] = doubts({"DOCKER_HOST": "ssh://builder.example"})
    assert "replaces the images" in said
    assert "modelcar:builder" in said
    assert "builder.example" not in said, "an address may hold a user"


CREATED, ADOPTED = "gcp:container/cluster:Cluster", "gcp:container/getCluster:getCluster"
OF_A_STACK: dict[str, dict[str, Any]] = {
    "created": {CLUSTER + "authorizedNetworks": ["192.0.2.0/24"]},
    "adopted": {CLUSTER + "create": None},
}


def of_a_stack(**changes: Any) -> dict[str, Any]:
    """Return the inputs of the provider that a stack with Google declares for its cluster."""
    stack = load_stack(as_texts(dev(**changes)), PROJECT)
    google = stack.google
    assert google
    engine = Engine(preview=False)

    def program() -> dict[str, pulumi.Output[Any]]:
        cloud = GoogleCloud("modelcar", GoogleCloudArgs(settings=google))
        delivery.destination(CheckedStack(stack, {}, {}, {}), cloud)
        return {}

    engine.run(program)
    return engine.the("kubernetes").inputs


def told(monkeypatch: pytest.MonkeyPatch, authority: str, address: str, name: str | None) -> None:
    """Let Google tell this of every cluster's control plane."""
    found = {"endpoint": name, "allowExternalTraffic": False}
    auth, ip = {"clusterCaCertificate": authority}, {"enabled": True}
    created = {"endpoint": address, "masterAuth": auth}
    adopted: dict[str, Any] = {"endpoint": address, "masterAuths": [auth]}
    if name:
        created["controlPlaneEndpointsConfig"] = {"dnsEndpointConfig": found, "ipEndpointsConfig": ip}
        configs = [{"dnsEndpointConfigs": [found], "ipEndpointsConfigs": [ip]}]
        adopted["controlPlaneEndpointsConfigs"] = configs
    monkeypatch.setitem(mocked_engine.OUTPUTS, CREATED, created)
    monkeypatch.setitem(mocked_engine.ANSWERS, ADOPTED, adopted)


@pytest.mark.parametrize("how", OF_A_STACK)
def test_a_cluster_with_another_address_or_certificate_is_the_same_one(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The provider replaces nothing while its `clusterIdentifier` stays (DiffConfig)."""
    told(monkeypatch, "Q0E=", "192.0.2.9", "gke-1.europe-west4.gke.goog")
    before = of_a_stack(**OF_A_STACK[how])
    told(monkeypatch, "TkVX", "192.0.2.10", "gke-1.europe-west4.gke.goog")
    after = of_a_stack(**OF_A_STACK[how])
    assert before["kubeconfig"] != after["kubeconfig"]
    assert before["clusterIdentifier"] == after["clusterIdentifier"] == "gke-1.europe-west4.gke.goog"
    # Another one that is called as this one was.
    told(monkeypatch, "TkVX", "192.0.2.10", "gke-2.europe-west4.gke.goog")
    assert of_a_stack(**OF_A_STACK[how])["clusterIdentifier"] == "gke-2.europe-west4.gke.goog"


@pytest.mark.parametrize("how", OF_A_STACK)
def test_nothing_is_made_up_for_a_cluster_that_nobody_can_tell_apart(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """An empty identifier would be that of each such cluster: a new one would get nothing."""
    told(monkeypatch, "Q0E=", "192.0.2.9", None)
    assert "clusterIdentifier" not in of_a_stack(**OF_A_STACK[how])
    told(monkeypatch, "Q0E=", "192.0.2.9", "gke-1.europe-west4.gke.goog")
    for own in ({"kubeContext": "lab"}, {"kubeconfig": "/a/path"}):
        assert "clusterIdentifier" not in of_a_stack(**OF_A_STACK[how], **own), "it may be any cluster"
