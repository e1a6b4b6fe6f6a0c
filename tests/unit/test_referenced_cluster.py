"""Which cluster is asked where another stack names it: that one, and never kubectl's current one."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from components.cluster.access import Cluster
from components.config.models import load_stack
from components.config.stack import Stack
from components.google import replaced
from components.stack import idle, other_stack
from local import doctor
from modelcar.errors import InputError, refuse
from operations import stack as of_operations
from operations.__main__ import main
from operations.stack import at_cluster, cluster_of
from tests.unit.test_google_settings import CLUSTER, PROJECT, as_texts, dev

REFERENCE = "acme/clusters/dev"
TOLD = {"clusterName": "shared", "clusterLocation": "europe-west4-b"}
CONTEXT = "gke_my-project_europe-west4-b_shared"
#: Where kubectl's contexts lead to.
SERVERS = {"current": "https://192.0.2.1", CONTEXT: "https://192.0.2.2", "chosen": "https://192.0.2.3"}


def stack(**changes: Any) -> Stack:
    """Return the dev stack on a cluster that another stack names."""
    own = {CLUSTER + key: None for key in ("create", "name", "location")}
    config = dev(**own, **{CLUSTER + "stackReference": REFERENCE}, **changes)
    return load_stack(as_texts(config), PROJECT)


@pytest.fixture(autouse=True)
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose current context is another cluster's."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "current",
        "users": [{"name": "me", "user": {"token": "t"}}],
        "clusters": [{"name": name, "cluster": {"server": server}} for name, server in SERVERS.items()],
        "contexts": [{"name": name, "context": {"cluster": name, "user": "me"}} for name in SERVERS],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    return path


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What Pulumi tells of the other stack, which a test may change; without any there is no such stack."""
    told: dict[str, Any] = dict(TOLD)

    def of(name: str, _: Path) -> Mapping[str, Any]:
        assert name == REFERENCE
        if not told:
            raise refuse("stack", f"{name}: no stack named 'dev' found", allowed="one", fix="look")
        return told

    async def invoke(_: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        assert arguments == {"name": REFERENCE}
        if not told:
            raise Exception("invoke failed:\nerror: no stack named 'dev' found")
        return {"outputs": dict(told)}

    monkeypatch.setattr(of_operations, "outputs_of", of)
    monkeypatch.setattr(pulumi.runtime, "invoke_async", invoke)
    monkeypatch.setattr(other_stack, "this_stack", lambda: "acme/modelcar/dev")
    return told


def program(found: Stack) -> Stack:
    """Return the stack as the program has it before it asks the cluster anything."""
    return asyncio.run(other_stack.at_cluster(found))


def test_a_cluster_that_is_not_known_is_not_the_current_one() -> None:
    with pytest.raises(InputError) as caught:
        Cluster.of(stack().shared)
    [problem] = caught.value.problems
    assert problem.key == "modelcar:google.cluster.stackReference"
    assert problem.value.startswith(f"{REFERENCE}: its outputs were not read")
    assert "clusterName and clusterLocation" in problem.allowed
    assert "modelcar:kubeContext gke_my-project_LOCATION_NAME (or modelcar:kubeconfig)" in problem.fix


def test_operations_and_the_program_ask_the_cluster_that_the_other_stack_names(
    outputs: dict[str, Any],
) -> None:
    assert cluster_of(stack().shared, PROJECT).name == SERVERS[CONTEXT]
    assert Cluster.of(program(stack()).shared).name == SERVERS[CONTEXT]


def test_each_model_of_a_list_knows_it(outputs: dict[str, Any]) -> None:
    found = program(
        stack(model=None, serviceName=None, models=[{"name": "one"}, {"name": "two", "idle": True}])
    )
    assert [model.own_context for model in found.models] == [CONTEXT] * 2


def test_what_a_stack_says_itself_wins_and_nobody_asks_the_other_one(outputs: dict[str, Any]) -> None:
    outputs.clear()
    for own in ({"kubeContext": "chosen"}, {"kubeconfig": "/nowhere", "kubeContext": "chosen"}):
        assert at_cluster(stack(**own).shared, PROJECT).kube_context == "chosen"
        assert program(stack(**own)).shared.kube_context == "chosen"
    assert cluster_of(stack(kubeContext="chosen").shared, PROJECT).name == SERVERS["chosen"]


def test_a_stack_that_names_its_cluster_or_has_none_in_google_asks_no_other_stack() -> None:
    named = load_stack(as_texts(dev()), PROJECT)
    assert program(named) is named
    assert at_cluster(named.shared, PROJECT) is named.shared


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({}, "no stack named 'dev' found"),
        ({"clusterName": "shared"}, "it has no output clusterLocation"),
        ({"url": "x"}, "it has no output clusterName and no output clusterLocation"),
        ({**TOLD, "clusterName": "[secret]"}, "its output clusterName names none: '[secret]'"),
        ({**TOLD, "clusterLocation": "Mars"}, "its output clusterLocation names none: 'Mars'"),
    ],
)
def test_a_stack_that_does_not_tell_is_refused_in_words(
    outputs: dict[str, Any], told: dict[str, Any], why: str
) -> None:
    outputs.clear()
    outputs.update(told)
    for ask in (lambda: cluster_of(stack().shared, PROJECT), lambda: program(stack())):
        with pytest.raises(InputError) as caught:
            ask()
        [problem] = caught.value.problems
        assert problem.key == "modelcar:google.cluster.stackReference"
        assert problem.value.startswith(f"{REFERENCE}: ")
        assert why in problem.value
        assert f"pulumi stack output --stack {REFERENCE}" in problem.fix


def test_a_machine_that_is_not_logged_in_to_the_cluster_is_told_the_command(
    outputs: dict[str, Any],
) -> None:
    outputs["clusterName"] = "other"
    with pytest.raises(InputError) as caught:
        cluster_of(stack().shared, PROJECT)
    assert (
        "get-credentials other --location=europe-west4-b --project=my-project" in caught.value.problems[0].fix
    )


def test_what_the_program_declares_stays_as_it_was(outputs: dict[str, Any]) -> None:
    before, after = stack(), program(stack())
    assert after.google == before.google
    assert before.google
    assert after.google
    assert replaced.made_with(after.google, {}) == replaced.made_with(before.google, {})
    assert idle.idle_cost(after.shared, 0) == idle.idle_cost(before.shared, 0)


@pytest.mark.parametrize(
    "command",
    ["prune --delete", "validate", "chat --ask x", "nodes", "coldstart", "revisions", "former", "smoke"],
)
def test_a_command_that_does_not_know_the_cluster_ends_before_it_asks_any(
    command: str,
    outputs: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    outputs.clear()
    monkeypatch.setattr("operations.stack.stack_of", lambda *_: stack())
    monkeypatch.setattr("operations.__main__.stack_of", lambda *_: stack())
    monkeypatch.setattr("operations.__main__.outputs_of", lambda *_: {})
    monkeypatch.setattr(Cluster, "request", lambda *_: pytest.fail("a cluster is asked"))
    assert main([*command.split(), "--stack", "dev"]) == 2
    assert "modelcar:google.cluster.stackReference: acme/clusters/dev" in capsys.readouterr().err


def test_doctor_tells_it(outputs: dict[str, Any]) -> None:
    outputs.clear()
    [line] = doctor._cluster(stack())
    assert (line.part, line.state) == ("cluster", "missing")
    assert "no stack named 'dev' found" in line.found


def test_no_command_takes_a_cluster_by_itself() -> None:
    """`cluster_of` is the only way to one: `Cluster.of` does not read what another stack tells."""
    found = [
        path.name
        for path in sorted((PROJECT / "operations").glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "of" and ast.unparse(node) == "Cluster.of"
    ]
    assert found == ["stack.py"]
