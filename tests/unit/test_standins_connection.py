"""Which cluster the provider's settings lead to, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from standins.kubernetes_provider import connection
from standins.kubernetes_provider.connection import KubeconfigError, settings_from


@pytest.fixture(autouse=True)
def _no_kubeconfig_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KUBECONFIG", raising=False)


def content(server: str = "http://127.0.0.1:1", context: str = "x", namespace: str = "") -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": context, "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
            "current-context": context,
        }
    )


def test_a_path_and_the_content_itself_lead_to_the_same_server(tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(content("http://there:1", namespace="mine"))
    for given in (str(file), file.read_text()):
        cluster, namespace = connection.connect(settings_from({"kubeconfig": given}))
        assert (cluster.server, namespace) == ("http://there:1", "mine")


def test_the_environment_is_used_where_nothing_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(content("http://env:1"))
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'absent'}:{file}")
    cluster, namespace = connection.connect(settings_from({}))
    assert (cluster.server, namespace) == ("http://env:1", "default")


def test_the_providers_namespace_wins_over_the_contexts() -> None:
    settings = settings_from({"kubeconfig": content(namespace="theirs"), "namespace": "ours"})
    assert connection.connect(settings)[1] == "ours"


@pytest.mark.parametrize(
    ("kubeconfig", "told"),
    [
        ("/nowhere/kubeconfig", "/nowhere/kubeconfig does not exist"),
        ("{}", "names no cluster"),
        ("a: b: c\n", "not YAML"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_named(kubeconfig: str, told: str) -> None:
    with pytest.raises(KubeconfigError, match=told) as caught:
        connection.connect(settings_from({"kubeconfig": kubeconfig}))
    assert caught.value.key == "kubeconfig"
    assert "fix:" in str(caught.value)


def test_no_kubeconfig_at_all_is_an_error() -> None:
    with pytest.raises(KubeconfigError, match="does not exist"):
        connection.connect(settings_from({}))


def test_an_unknown_context_is_refused_with_those_that_are_there() -> None:
    with pytest.raises(KubeconfigError, match=r"context: y is not in .* allowed: x\.") as caught:
        connection.connect(settings_from({"kubeconfig": content(), "context": "y"}))
    assert caught.value.key == "context"


def test_flags_come_from_the_settings_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_K8S_ENABLE_PATCH_FORCE", "true")
    assert settings_from({}).flag("enablePatchForce")
    assert not settings_from({"enablePatchForce": "false"}).flag("enablePatchForce")


def test_settings_that_the_stand_in_lacks_are_refused_by_name() -> None:
    refused = connection.unsupported(
        {
            "renderYamlToDirectory": "out",
            "enableServerSideApply": "false",
            "alwaysRender": "false",
            "kubeconfig": "x",
            "namespace": "n",
        }
    )
    assert sorted(refused) == ["enableServerSideApply", "renderYamlToDirectory"]
    assert "fix:" in refused["renderYamlToDirectory"]
