"""After KServe is installed nothing else is declared in the cluster before its webhooks answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes
import pytest

from components.cluster import webhooks
from components.cluster.access import Cluster, ClusterError
from components.cluster.guard import ClusterAccess
from components.config import arguments
from components.config.models import load_stack
from components.kserve.kserve_platform import KServePlatform, KServePlatformArgs
from components.stack import delivery
from components.stack.preflight import CheckedStack
from modelcar.errors import refuse
from tests.unit.fake_cluster import FakeCluster
from tests.unit.mocked_engine import Engine
from tests.unit.test_components_settings import MINIMAL

KUBECONFIG = "apiVersion: v1\nkind: Config\n"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []
    monkeypatch.setattr(webhooks, "await_answer", lambda place, *_, **__: found.append(place))
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

    monkeypatch.setattr(webhooks, "await_answer", silent)
    engine = Engine(preview=False)
    with pytest.raises(Exception, match=r"(?s)KServe is installed, and no model was declared.*open 9443"):
        declare(engine, tmp_path)
    assert "kserve-demo" not in namespaces(engine)
    monkeypatch.setattr(arguments, "spelled", str)  # as in a program of one's own, which has no settings
    with pytest.raises(Exception, match=r"declared:\nkserve: the API server does not reach them"):
        declare(engine, tmp_path)


def test_a_preview_waits_for_nothing(asked: list[Any], tmp_path: Path) -> None:
    engine = Engine(preview=True)
    declare(engine, tmp_path)
    assert asked == []
    assert "kserve-demo" in namespaces(engine)


# --- a program of one's own


def own_program(access: ClusterAccess | None) -> dict[str, pulumi.Output[Any]]:
    """Declare KServe and what depends on it, as `templates/modelcar-gke` does."""
    kserve = KServePlatform("kserve", KServePlatformArgs(access=access, firewall_rule="open 9443"))
    after = pulumi.ResourceOptions(depends_on=[kserve.ready])
    kubernetes.core.v1.Namespace("models", metadata={"name": "models"}, opts=after)
    return {"version": kserve.version}


@pytest.mark.parametrize("preview", [True, False])
def test_what_depends_on_ready_comes_after_the_webhooks(asked: list[Any], preview: bool) -> None:
    engine = Engine(preview=preview)
    told = engine.run(lambda: own_program(ClusterAccess(pulumi.Output.from_input(KUBECONFIG), "own")))
    assert [(place.kubeconfig, place.kube_context) for place in asked] == [(KUBECONFIG, "own")] * (
        not preview
    )
    assert preview or told == {"version": "v0.19.0"}
    last = engine.declared[-1]
    assert last.inputs["metadata"]["name"] == "models"
    assert any("helm.sh/v3:Release::kserve" in urn for urn in last.dependencies)


def test_without_access_nobody_is_asked(asked: list[Any]) -> None:
    engine = Engine(preview=False)
    assert engine.run(lambda: own_program(None)) == {"version": "v0.19.0"}
    assert asked == []
    assert "models" in namespaces(engine)


def test_in_a_program_too_nothing_comes_after_webhooks_that_do_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Silent(FakeCluster):
        def request(self, *_: Any, **__: Any) -> Any:
            webhook = "inferenceservice.kserve-webhook-server.defaulter"
            raise ClusterError(500, f'failed calling webhook "{webhook}": context deadline exceeded')

    monkeypatch.setattr(webhooks, "PAUSE", 0)
    monkeypatch.setattr(Cluster, "of", lambda _: Silent())
    engine = Engine(preview=False)
    with pytest.raises(Exception, match=r"(?s)does not reach KServe's webhooks.*fix: open 9443"):
        engine.run(lambda: own_program(ClusterAccess(KUBECONFIG)))
    assert "models" not in namespaces(engine)
