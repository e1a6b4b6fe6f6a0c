"""The cluster's provider is alike in every checkout; what is not, is said."""

from __future__ import annotations

import os
from typing import Any

import pulumi
import pytest

from components.kserve.cluster_provider import CAPTURED, cluster_provider, doubts
from tests.unit.mocked_engine import Engine

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
