"""What a run tells at its end where something failed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pulumi
import pytest

from components.config.models import load_stack
from components.engine.left_out import LeftOutError
from components.stack import outputs
from tests.unit.test_components_models import load as list_of
from tests.unit.test_components_models import on_google
from tests.unit.test_components_settings import MINIMAL

STATES = Path(__file__).parents[1] / "fixtures" / "states"

FORMER: dict[str, Any] = {
    "models": {"chat": {"serviceName": "chat"}},
    "clusterName": "models",
    "clusterLocation": "europe-west4",
    "clusterEndpoint": "dns",
    "nodeServiceAccount": "nodes@my-project.iam.gserviceaccount.com",
}


def exported(
    former: dict[str, Any], monkeypatch: pytest.MonkeyPatch, uid: str | None = None
) -> tuple[dict[str, Any], str]:
    """Return what an update in which the cluster fails exports, and the error that it ends with."""
    told: dict[str, Any] = {}
    monkeypatch.setattr(pulumi, "export", told.__setitem__)
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: False)

    def fails(_: str) -> str:
        raise RuntimeError("this account may not")

    async def run() -> str:
        known = pulumi.Output.from_input("europe-west1")
        failed: Any = pulumi.Output.from_input(pulumi.UNKNOWN)
        cloud: Any = SimpleNamespace(
            registry=SimpleNamespace(path=failed),
            cluster=SimpleNamespace(name=failed, location=known, endpoint=failed),
            pools={"gpu": SimpleNamespace(name=failed, disk_gb=200)},
            node_account=known.apply(fails),
        )
        with pytest.raises(pulumi.RunError) as caught:
            await outputs.export(
                on_google({"name": "chat"}), cloud, {}, {"chat": ValueError("no place")}, former, uid
            )
        return str(caught.value)

    return told, asyncio.run(run())


def test_what_failed_is_told_as_the_last_run_told_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told, error = exported(FORMER, monkeypatch)
    assert told["clusterName"] == "models"
    assert told["clusterEndpoint"] == "dns"
    assert told["nodeServiceAccount"] == FORMER["nodeServiceAccount"]
    assert isinstance(told["clusterLocation"], pulumi.Output), "what is there is told as it is now"
    assert told["models"] == FORMER["models"]
    assert error == "1 of 1 models failed\n  chat: no place"


def test_registry_and_pools_are_told_once_google_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run pushes before anything is declared where there is a registry, and compares pools."""
    former = {**FORMER, "registry": "europe-west4-docker.pkg.dev/my-project/models", "nodePools": {}}
    told, _ = exported(former, monkeypatch)
    assert told["registry"] == former["registry"]
    assert told["nodePools"] == {}


def test_what_never_was_there_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told, _ = exported({}, monkeypatch)
    assert "clusterLocation" in told
    absent = {"clusterName", "nodeServiceAccount", "googleMadeWith", "clusterUid", "nodePools", "registry"}
    assert told.keys() & absent == set()
    assert told["models"] == {}


@pytest.mark.parametrize("listed", [False, True], ids=["one model", "a list"])
@pytest.mark.parametrize("version", sorted(path.stem for path in STATES.glob("*.json")))
def test_a_model_of_a_former_version_that_fails_is_told_as_it_serves_on(
    version: str, listed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers in other stacks rely on it, and the next run knows by it how the service is called."""
    state = json.loads((STATES / f"{version}.json").read_text())
    [former] = [row["outputs"] for row in state["resources"] if row["type"] == "pulumi:pulumi:Stack"]
    before, service = former, former["serviceName"]
    if listed:
        stack = list_of({"name": "chat", "formerNames": [service]}, {"name": "other"})
    else:
        config = {f"modelcar:{key}": value for key, value in {**MINIMAL, "serviceName": service}.items()}
        stack = load_stack(config, Path("/nowhere"))
    for _ in range(2):
        told: dict[str, Any] = {}
        monkeypatch.setattr(pulumi, "export", told.__setitem__)
        failed: dict[str, Exception] = {model.key: ValueError("no GPU") for model in stack.models}
        with pytest.raises(pulumi.RunError):
            asyncio.run(outputs.export(stack, None, {}, failed, former))
        shown = told["models"].get(stack.models[0].key) or told
        for name in ("serviceName", "storageUri", "modelDigest", "imageReference"):
            assert shown[name] == before[name]
        former = told


def test_the_next_run_knows_the_cluster_of_one_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    told, _ = exported({}, monkeypatch, "some-uid")
    assert told["clusterUid"] == "some-uid"


def test_what_a_run_leaves_out_is_told_as_it_was_and_is_no_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr(pulumi, "export", told.__setitem__)
    stack = list_of({"name": "chat"}, {"name": "code"})
    former = {
        "models": {
            "chat": {"serviceName": "chat", "storageUri": f"oci://former.example/chat@sha256:{'a' * 64}"}
        }
    }
    now = {"serviceName": "code"}
    asyncio.run(outputs.export(stack, None, {"code": now}, {"chat": LeftOutError()}, former))
    assert told["models"] == {**former["models"], "code": now}
    assert "removedModels" not in told, "it serves on"
    failed = {"chat": LeftOutError(), "code": ValueError("no place")}
    with pytest.raises(pulumi.RunError) as caught:
        asyncio.run(outputs.export(stack, None, {}, failed, former))
    assert str(caught.value) == "1 of 2 models failed\n  code: no place"
