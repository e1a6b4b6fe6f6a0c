"""After KServe is installed nothing else is declared in the cluster before its webhooks answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pulumi
import pytest

from components.cluster import webhooks
from components.config.models import load_stack
from components.stack import delivery
from components.stack.preflight import CheckedStack
from modelcar.errors import refuse
from tests.unit.mocked_engine import Engine
from tests.unit.test_components_settings import MINIMAL

KUBECONFIG = "apiVersion: v1\nkind: Config\n"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []
    monkeypatch.setattr(webhooks, "require", lambda settings, **_: found.append(settings))
    return found


def declare(engine: Engine, folder: Path, **changes: Any) -> None:
    config = {**MINIMAL, "kserve": {"install": True}, "kubeconfig": KUBECONFIG, **changes}
    texts = {f"modelcar:{k}": v if isinstance(v, str) else json.dumps(v) for k, v in config.items()}
    facts = CheckedStack(load_stack(texts, folder), {}, {}, {}, reachable=True)

    def program() -> dict[str, pulumi.Output[Any]]:
        place = delivery.destination(facts, None)
        return {"there": pulumi.Output.from_input(place is not None)}

    engine.run(program)


def test_the_namespace_comes_after_the_webhooks(asked: list[Any], tmp_path: Path) -> None:
    engine = Engine(preview=False)
    declare(engine, tmp_path)
    assert [settings.kubeconfig for settings in asked] == [KUBECONFIG]
    kinds = [found.type.rpartition(":")[2] for found in engine.declared]
    assert kinds[-1] == "Namespace"


def namespaces(engine: Engine) -> list[str]:
    """Return the namespaces that are declared, KServe's own and that of the models."""
    return [
        found.inputs["metadata"]["name"] for found in engine.declared if found.type.endswith(":Namespace")
    ]


def test_webhooks_that_do_not_answer_keep_everything_else_away(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def silent(*_: Any, **__: Any) -> None:
        raise refuse("modelcar:kserve", "the API server does not reach them", allowed="x", fix="open 9443")

    monkeypatch.setattr(webhooks, "require", silent)
    engine = Engine(preview=False)
    with pytest.raises(Exception, match=r"(?s)KServe is installed, and no model was declared.*open 9443"):
        declare(engine, tmp_path)
    assert "kserve-demo" not in namespaces(engine)


def test_a_preview_waits_for_nothing(asked: list[Any], tmp_path: Path) -> None:
    engine = Engine(preview=True)
    declare(engine, tmp_path)
    assert asked == []
    assert "kserve-demo" in namespaces(engine)
