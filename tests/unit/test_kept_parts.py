"""What others in the cluster need too is not deleted by a setting, and a namespace that goes is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pulumi
import pytest

from components.config.models import load_stack
from components.kserve.kserve_platform import KServePlatform, KServePlatformArgs
from components.stack import delivery, kept_parts, summary
from components.stack.preflight import CheckedStack
from tests.unit.mocked_engine import DIGEST, Engine
from tests.unit.test_google_settings import PROJECT, as_texts, dev

SPACE = "urn:pulumi:stack::project::kubernetes:core/v1:Namespace::kserve-demo"
MODEL = "urn:pulumi:stack::project::modelcar:kserve:Model$modelcar:kserve:ModelService"
SERVICE = f"{MODEL}$kubernetes:serving.kserve.io/v1beta1:InferenceService::qwen"
IMAGE = "urn:pulumi:stack::project::modelcar:kserve:Model$modelcar:kserve:ModelcarImage::qwen"
GIT = {"folder": "/checkout/apps/models"}


@pytest.fixture(autouse=True)
def of_a_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulumi, "get_stack", lambda: "stack")


def installed(**arguments: Any) -> list[str]:
    """Return the URNs of KServe as a stack makes it."""
    engine = Engine(preview=False)

    def program() -> dict[str, pulumi.Output[Any]]:
        return {"version": KServePlatform("kserve", KServePlatformArgs(**arguments)).version}

    engine.run(program)
    return [found.urn.replace("pulumi:pulumi:Stack$", "") for found in engine.declared]


def found(urns: list[str], **config: Any) -> list[tuple[str, str]]:
    stack = load_stack(as_texts(dev(**config)), PROJECT)
    return [(one.key.removeprefix("modelcar:"), one.fix) for one in kept_parts.problems(stack, urns)]


def head(urns: list[str], **config: Any) -> list[str]:
    return list(kept_parts.told(load_stack(as_texts(dev(**config)), PROJECT), urns))


def test_a_namespace_that_the_stack_made_is_not_let_go() -> None:
    [(key, fix)] = found([SPACE, SERVICE], createNamespace=False)
    assert key == "createNamespace"
    assert f"pulumi state move --source stack --dest handover '{SPACE}'" in fix
    assert found([SPACE, SERVICE]) == []
    assert found([SERVICE], createNamespace=False) == [], "it is somebody else's"


def test_another_namespace_is_told_with_the_one_that_goes() -> None:
    assert head([SPACE, SERVICE]) == []
    for changed in ({"namespace": "other"}, {"namespace": "other", "createNamespace": False}):
        [line] = head([SPACE, SERVICE], **changed)
        assert line.startswith("DELETED: Namespace kserve-demo (namespace kserve-demo → other)")
        assert found([SPACE, SERVICE], **changed) == []


@pytest.mark.parametrize(
    ("kserve", "key", "named"),
    [
        ({"install": False}, "kserve.install", ["KServePlatform::kserve"]),
        (
            {"install": True, "installCertManager": False},
            "kserve.installCertManager",
            ["Namespace::kserve-namespace-cert-manager", "Release::kserve-cert-manager"],
        ),
        ({"install": True, "namespace": "kserve-system"}, "kserve.namespace", []),
    ],
    ids=["KServe", "cert-manager", "namespace"],
)
def test_kserve_that_the_stack_made_is_not_let_go(kserve: dict[str, Any], key: str, named: list[str]) -> None:
    urns = installed()
    [(refused, fix)] = found(urns, kserve=kserve)
    assert refused == key
    assert [part for part in fix.split("'") if part in urns] == [
        urn for urn in sorted(urns) if any(urn.endswith(name) for name in named)
    ]
    assert found(urns, kserve={"install": True}) == []
    assert found(urns, kserve={"install": True}, delivery="gitops", gitops=GIT) == []
    assert found([], kserve=kserve) == []


def test_kserve_of_a_run_that_broke_off_before_its_charts_goes() -> None:
    """As the message about a namespace that is there already says it: `kserve.install: false`."""
    urns = [urn for urn in installed() if "Release" not in urn]
    assert found(urns, kserve={"install": False}) == []


def test_cert_manager_is_not_let_go_where_it_is_all_that_is_left() -> None:
    urns = [urn for urn in installed() if "cert-manager" in urn]
    [(key, fix)] = found(urns, kserve={"install": False})
    assert key == "kserve.install"
    assert "Release::kserve-cert-manager'" in fix


def test_what_a_former_version_only_read_keeps_nobody_from_git() -> None:
    read = "urn:pulumi:stack::project::kubernetes:core/v1:ConfigMap::kserve-config"
    assert found([read], delivery="gitops", gitops=GIT) == []


def test_cert_manager_that_is_others_is_none_of_the_stacks() -> None:
    urns = installed(install_cert_manager=False)
    assert found(urns, kserve={"install": True, "installCertManager": False}) == []


def test_what_serves_is_handed_over_before_git_delivers_it() -> None:
    [(key, fix)] = found([SPACE, SERVICE, IMAGE], delivery="gitops", gitops=GIT)
    assert key == "delivery"
    assert f"pulumi state delete --stack stack --target-dependents '{SPACE}' (" in fix
    [(_, fix)] = found([SERVICE, IMAGE], delivery="gitops", gitops=GIT)
    assert f"--target-dependents '{SERVICE}' (" in fix
    assert found([IMAGE], delivery="gitops", gitops=GIT) == []


def test_the_namespace_takes_the_models_out_of_the_state_and_leaves_kserve() -> None:
    """As `pulumi state delete --target-dependents` does it, in the words of docs/operations/gitops.md."""
    texts = as_texts(dev(google=None, kserve={"install": True}, registry="registry.example/models"))
    stack = load_stack(texts, PROJECT)
    engine = Engine(preview=True)

    def program() -> dict[str, pulumi.Output[Any]]:
        place = delivery.destination(CheckedStack(stack, {}, {}, {}), None)
        assert place
        uri = pulumi.Output.from_input(f"oci://registry.example/models/chat@{DIGEST}")
        parent = pulumi.ComponentResource("modelcar:kserve:Model", "chat")
        return {"uri": delivery.to_cluster(parent, "chat", stack.shared, uri, place).served}

    engine.run(program)
    in_cluster = [found for found in engine.declared if found.type.startswith("kubernetes:")]
    [space] = [found.urn for found in in_cluster if found.urn.endswith(f"::{stack.shared.namespace}")]
    gone = {space}
    for found in [*engine.declared, *engine.declared]:
        if gone & {*found.dependencies, found.parent}:
            gone.add(found.urn)
    left = [found.urn for found in in_cluster if found.urn not in gone]
    assert len(in_cluster) - len(left) >= 3
    assert left
    assert all("KServePlatform" in urn for urn in left)
    assert not any("KServePlatform" in urn for urn in gone)


def test_the_engine_is_asked_for_what_the_state_has(monkeypatch: pytest.MonkeyPatch) -> None:
    async def invoke(function: str, arguments: dict[str, str]) -> Any:
        assert function == "pulumi:pulumi:readStackResourceOutputs"
        if arguments != {"stackName": "acme/project/stack"}:
            raise Exception("error: unknown stack")
        return {"outputs": {SPACE: {"type": "kubernetes:core/v1:Namespace", "outputs": {}}}}

    monkeypatch.setattr(pulumi, "get_organization", lambda: "acme")
    monkeypatch.setattr(pulumi, "get_project", lambda: "project")
    monkeypatch.setattr(pulumi.runtime, "invoke_async", invoke)
    assert list(asyncio.run(summary.former_resources())) == [SPACE]
    monkeypatch.setattr(pulumi, "get_project", lambda: "another")
    with pytest.raises(pulumi.RunError, match=r"acme/another/stack: .*nothing was changed: .*unknown stack"):
        asyncio.run(summary.former_resources())
