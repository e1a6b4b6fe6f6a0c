"""What a run tells at its end where something failed."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pulumi
import pytest

from components.stack import outputs
from tests.unit.test_components_models import on_google

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


def test_what_never_was_there_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told, _ = exported({}, monkeypatch)
    assert "clusterLocation" in told
    assert told.keys() & {"clusterName", "nodeServiceAccount", "googleMadeWith", "clusterUid"} == set()
    assert told["models"] == {}


def test_the_next_run_knows_the_cluster_of_one_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    told, _ = exported({}, monkeypatch, "some-uid")
    assert told["clusterUid"] == "some-uid"
