"""`placement: auto`: what is taken from the last run, and when the cluster is tested (again)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pulumi
import pytest

from components.cluster import placement
from components.cluster.access import ClusterError
from components.cluster.placement import Found, find, fingerprint
from components.cluster.smoke import Outcome, Smoke
from components.config.settings import Settings
from components.config.stack import Stack
from components.stack import delivery
from components.stack.preflight import CheckedStack
from modelcar.errors import InputError
from tests.unit.fake_cluster import FakeCluster
from tests.unit.mocked_engine import Engine
from tests.unit.test_components_models import load as list_of
from tests.unit.test_components_settings import load

SETTINGS = load(placement="auto", namespace="models", serviceName="m")
REGISTRY = SETTINGS.registry
KEPT = "/api/v1/namespaces/models/configmaps/m-smoke-test"
CONFIG = "/api/v1/namespaces/kserve/configmaps/inferenceservice-config"
KSERVE = "/apis/serving.kserve.io/v1beta1"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    made = FakeCluster()
    made.found[KSERVE] = {}
    made.found[CONFIG] = {"data": {"storageInitializer": "{}"}}
    monkeypatch.setattr("components.cluster.access.Cluster.of", lambda _: made)
    return made


@pytest.fixture
def tested(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let each test find that storageUriEnv works; note that it was run."""
    runs: list[str] = []

    def run(*_: Any, **__: Any) -> Smoke:
        runs.append("run")
        outcomes = (Outcome("servingRuntime", "refused", "no"), Outcome("storageUriEnv", "works"))
        return Smoke("v0.19.0", outcomes, "storageUriEnv")

    monkeypatch.setattr("components.cluster.placement.smoke", run)
    monkeypatch.setattr("components.cluster.placement.push_probe", lambda *_: "sha256:" + "0" * 64)
    return runs


def ask(
    settings: Settings = SETTINGS, *, preview: bool = False, reachable: bool = True, registry: bool = True
) -> tuple[Found, str]:
    said: list[str] = []
    found = find(
        settings,
        Path("/nowhere"),
        preview=preview,
        reachable=reachable,
        registry=registry,
        say=said.append,
        stack="dev",
    )
    return found, "\n".join(said)


def keep(cluster: FakeCluster, **data: str) -> None:
    cluster.found[KEPT] = {"data": data}


def test_the_first_up_tests(cluster: FakeCluster, tested: list[str]) -> None:
    found, said = ask()
    assert found == Found("storageUriEnv", fingerprint(cluster, SETTINGS, ()))
    assert tested == ["run"]
    assert "placement to use: storageUriEnv" in said


def test_up_says_what_the_test_waits_for(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, notice: Callable[[str], None], **__: Any) -> Smoke:
        notice("another smoke test runs")
        return Smoke("", (Outcome("servingRuntime", "works"),), "servingRuntime")

    monkeypatch.setattr("components.cluster.placement.smoke", run)
    monkeypatch.setattr("components.cluster.placement.push_probe", lambda *_: "sha256:" + "0" * 64)
    assert "another smoke test runs\n" in ask()[1]


def test_what_was_found_out_is_taken(cluster: FakeCluster, tested: list[str]) -> None:
    keep(cluster, placement="storageUris", fingerprint=fingerprint(cluster, SETTINGS, ()))
    for preview in (True, False):
        assert ask(preview=preview)[0].placement == "storageUris"
    assert not tested


def test_a_kserve_that_has_changed_is_tested_again_by_up_alone(
    cluster: FakeCluster, tested: list[str]
) -> None:
    keep(cluster, placement="storageUris", fingerprint=fingerprint(cluster, SETTINGS, ()))
    cluster.found[CONFIG] = {"data": {"storageInitializer": '{"enableModelcar": true}'}}
    found, said = ask(preview=True)
    assert found.placement == "storageUris"
    assert "`pulumi up` tests again" in said
    assert not tested
    assert ask()[0].placement == "storageUriEnv"
    assert tested


def test_a_first_preview_assumes(cluster: FakeCluster, tested: list[str]) -> None:
    found, said = ask(preview=True)
    assert found == Found("servingRuntime")
    assert "this preview assumes servingRuntime" in said
    assert not tested


@pytest.mark.parametrize("preview", [True, False])
def test_a_kserve_of_the_stacks_own_needs_no_test(tested: list[str], preview: bool) -> None:
    settings = load(placement="auto", kserve={"install": True})
    assert ask(settings, preview=preview)[0] == Found("servingRuntime")
    assert not tested


def test_a_cluster_that_cannot_be_reached_is_not_asked(tested: list[str]) -> None:
    assert ask(preview=True, reachable=False)[0] == Found("servingRuntime")


@pytest.mark.parametrize(("preview", "reachable"), [(True, False), (True, True), (False, True)])
def test_a_registry_that_this_up_makes_cannot_be_pushed_to_yet(
    cluster: FakeCluster, tested: list[str], preview: bool, reachable: bool
) -> None:
    """The first `up` on a cluster that was there ended in 404 NAME_UNKNOWN."""
    found, said = ask(preview=preview, reachable=reachable, registry=False)
    assert found == Found("servingRuntime")
    assert (
        f"servingRuntime, as the test pushes an image, and this `pulumi up` makes the registry {REGISTRY}"
        in said
    )
    assert "the next one tests" in said
    assert not tested


def test_what_serves_stays_while_another_registry_is_made(cluster: FakeCluster, tested: list[str]) -> None:
    keep(cluster, placement="storageUris", fingerprint="of before")
    found, said = ask(registry=False)
    assert found == Found("storageUris", "of before"), "and the next `up` tests"
    assert "placement auto: storageUris, as the test pushes" in said
    assert not tested


def test_what_was_assumed_is_tested_next_and_kept_where_it_works(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(cluster, placement="servingRuntime", fingerprint="")
    found, said = ask(preview=True)
    assert found == Found("servingRuntime")
    assert "servingRuntime, as before, and not tested yet; `pulumi up` tests it" in said
    preferred: list[Any] = []

    def run(*_: Any, prefer: str | None, **__: Any) -> Smoke:
        preferred.append(prefer)
        return Smoke("v0.19.0", (Outcome("servingRuntime", "works"),), "servingRuntime")

    monkeypatch.setattr("components.cluster.placement.smoke", run)
    monkeypatch.setattr("components.cluster.placement.push_probe", lambda *_: "sha256:" + "0" * 64)
    assert ask()[0] == Found("servingRuntime", fingerprint(cluster, SETTINGS, ()))
    assert preferred == ["servingRuntime"], "image volumes would make new pods for nothing"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            httpx.HTTPStatusError(
                "Client error '404 Not Found' for url 'https://x/v2/'\nFor more information: …",
                request=httpx.Request("POST", "https://x/v2/"),
                response=httpx.Response(404),
            ),
            f"cannot be pushed to {REGISTRY}/modelcar-smoke: the registry answers 404",
        ),
        (httpx.ConnectError("connection refused"), "cannot be reached (connection refused)"),
        (httpx.ReadTimeout(""), "cannot be reached (ReadTimeout)"),
        (OSError("no space left on device"), "no space left on device"),
    ],
)
def test_a_registry_that_takes_no_image_is_told_with_the_way_out(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    def push(*_: Any) -> str:
        raise error

    monkeypatch.setattr("components.cluster.placement.push_probe", push)
    with pytest.raises(InputError) as caught:
        ask()
    [problem] = caught.value.problems
    assert problem.key == "modelcar:placement"
    assert problem.value.endswith(told)
    assert "pulumi config set modelcar:placement servingRuntime" in problem.fix


def test_none_that_works_is_told_with_every_reason(
    cluster: FakeCluster, tested: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = (Outcome("servingRuntime", "ignored", "off"), Outcome("storageUris", "failed", "no pod"))
    monkeypatch.setattr("components.cluster.placement.smoke", lambda *_, **__: Smoke("", outcomes, None))
    with pytest.raises(InputError, match=r"servingRuntime: off; storageUris: no pod"):
        ask()


def test_an_api_server_that_goes_away_is_told_with_the_way_out(cluster: FakeCluster) -> None:
    cluster.refusals[CONFIG] = ClusterError(0, "it does not answer")
    with pytest.raises(InputError, match=r"(?s)cannot be asked: it does not answer.*modelcar:placement serv"):
        ask()


def test_a_cluster_without_kserve_is_told(cluster: FakeCluster) -> None:
    del cluster.found[KSERVE]
    with pytest.raises(InputError, match="knows no InferenceService"):
        ask()


def test_modes_are_tested_apart(cluster: FakeCluster) -> None:
    knative = load(placement="auto", deploymentMode="Knative")
    assert fingerprint(cluster, knative, ()) != fingerprint(cluster, SETTINGS, ())


LISTED = list_of({"name": "chat"}, placement="auto", namespace="models")


def test_stacks_with_lists_keep_what_they_found_out_apart() -> None:
    """Two of them may share a namespace: one's `destroy` would delete what the other one owns too."""
    settings = LISTED.shared
    names = [placement.config_map_name(settings, stack) for stack in ("dev", "prod", "team.dev", "team-dev")]
    assert names[:2] == ["modelcar-smoke-test-dev", "modelcar-smoke-test-prod"]
    assert len(set(names)) == 4
    assert placement.config_map_name(SETTINGS, "dev") == "m-smoke-test"


def test_what_a_former_version_found_out_is_taken(cluster: FakeCluster, tested: list[str]) -> None:
    settings = LISTED.shared
    data = {"placement": "storageUris", "fingerprint": fingerprint(cluster, settings, ())}
    cluster.found["/api/v1/namespaces/models/configmaps/modelcar-smoke-test"] = {"data": data}
    assert ask(settings)[0].placement == "storageUris"
    cluster.found["/api/v1/namespaces/models/configmaps/modelcar-smoke-test-dev"] = {
        "data": {**data, "placement": "imageVolume"}
    }
    assert ask(settings)[0].placement == "imageVolume"
    assert not tested


@pytest.mark.parametrize(
    ("stack", "was_listed", "name", "ignored"),
    [
        (LISTED, False, "modelcar-smoke-test-stack", ()),
        (LISTED, True, "modelcar-smoke-test-stack", ("metadata.name",)),
        (Stack((SETTINGS,), listed=False), False, "m-smoke-test", ()),
    ],
    ids=["new, or of one model before", "deployed: keeps its name", "one model"],
)
def test_the_config_map_of_a_deployed_stack_is_not_replaced(
    stack: Stack, was_listed: bool, name: str, ignored: tuple[str, ...]
) -> None:
    engine = Engine(preview=False)
    facts = CheckedStack(stack, {}, {}, {}, tested=Found("storageUris", "1"), was_listed=was_listed)

    def program() -> dict[str, pulumi.Output[Any]]:
        return {"there": pulumi.Output.from_input(delivery.destination(facts, None) is not None)}

    engine.run(program)
    found = engine.the("ConfigMap")
    assert (found.inputs["metadata"]["name"], found.ignored) == (name, ignored)
    assert found.before_create == ("absent-ConfigMap-smoke-test",)
