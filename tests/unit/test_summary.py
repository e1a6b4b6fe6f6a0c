"""What a reviewer reads first."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pulumi
import pytest

from components.config.disk import DiskNeed
from components.config.google import NodeSettings
from components.config.stack import Stack
from components.google import replaced
from components.stack import summary
from components.stack.preflight import CheckedStack
from modelcar import locking
from modelcar.base import read_base
from modelcar.image import modelcar_image
from modelcar.lock import Lock
from modelcar.tiny_model import make_tiny_model
from tests.unit.test_components_models import A100, load, on_google

PAGE = (Path(__file__).parents[2] / "docs/google-cloud.md").read_text()
BEFORE = "sha256:" + "b" * 64


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Lock:
    folder = tmp_path_factory.mktemp("project")
    make_tiny_model(folder / "weights")
    description = locking.Description(folder="weights", license="MIT")
    return locking.lock_model("chat", description, locking.resolve(description, folder), folder)[0]


def told(
    monkeypatch: pytest.MonkeyPatch, stack: Stack, lock: Lock | None, former: dict[str, Any], **facts: Any
) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(pulumi.log, "info", lines.append)

    locks = {settings.key: lock for settings in stack.models}
    known = {"former": dict.fromkeys(locks), "disks": {}} | facts
    asyncio.run(summary.tell(CheckedStack(stack, locks, **known), {"models": former}))
    return lines[0].splitlines()


def digest(lock: Lock) -> str:
    return modelcar_image(lock, read_base("amd64")).digest


def test_a_new_model_an_old_one_and_one_that_changes(monkeypatch: pytest.MonkeyPatch, lock: Lock) -> None:
    stack = load({"name": "new"}, {"name": "same"}, {"name": "changed"}, registry="127.0.0.1:1/models")
    former = {"same": {"modelDigest": digest(lock)}, "changed": {"modelDigest": BEFORE}, "gone": {}}
    head, new, same, changed, gone = told(monkeypatch, stack, lock, former)
    short = digest(lock).removeprefix("sha256:")[:12]
    assert head.split() == ["model", "digest", "to", "push", "pods"]
    assert f"new → {short}" in new
    assert "at most 3.9 MiB" in new, "the registry cannot be asked"
    assert f"{short}, as before" in same
    assert "nothing" in same
    assert f"{'b' * 12} → {short}" in changed
    assert gone == "no longer served: gone; their images stay in the registry"


def test_a_repository_that_a_model_leaves_is_told(monkeypatch: pytest.MonkeyPatch, lock: Lock) -> None:
    before = {"modelDigest": digest(lock), "storageUri": f"oci://old.example/models/chat@{digest(lock)}"}
    lines = told(monkeypatch, load({"name": "chat"}), lock, {"chat": before})
    assert lines[-1] == "no longer served from: old.example/models/chat; the images stay there"


def test_only_what_the_registry_lacks_is_pushed(monkeypatch: pytest.MonkeyPatch, lock: Lock) -> None:
    layers = modelcar_image(lock, read_base("amd64")).layers
    largest = max(layers, key=lambda layer: layer.size)
    there = frozenset(layer.digest for layer in layers if layer is not largest)
    monkeypatch.setattr("modelcar.push.layers_there", lambda *_, **__: there)
    [_, row] = told(monkeypatch, load({"name": "chat"}), lock, {})
    assert f"{largest.size / 2**20:.1f} MiB" in row


def test_a_renamed_model_is_the_same(monkeypatch: pytest.MonkeyPatch, lock: Lock) -> None:
    stack = load({"name": "assistant", "formerNames": ["chat"]})
    lines = told(monkeypatch, stack, lock, {"chat": {"modelDigest": digest(lock)}})
    assert "as before" in lines[1]
    assert len(lines) == 2


def test_without_a_lock_nothing_is_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    [_, row] = told(monkeypatch, load({"name": "chat"}), None, {})
    assert "new → not known without a lock" in row
    assert "nothing" not in row


def test_pools_with_their_disks_and_the_class_of_their_cost(
    monkeypatch: pytest.MonkeyPatch, lock: Lock
) -> None:
    stack = on_google({"name": "chat"}, **{"google.pools": [{**A100, "minNodes": 1}]})
    disks = {"gpu": DiskNeed(10), "large": DiskNeed(100)}
    monkeypatch.setattr("modelcar.push.layers_there", lambda *_, **__: frozenset())
    *_, small, large = told(monkeypatch, stack, lock, {}, disks=disks)
    assert small == "pool gpu: 0 to 1 g2-standard-8, disk 200 GB for 110 GB, idle: none, a node $ (spot)"
    assert small in PAGE.splitlines(), "as the page shows it"
    assert large == (
        "pool large: 1 to 1 a2-ultragpu-2g, disk 560 GB for 470 GB, idle: 1 once pods made them, a node $$"
    )


def test_the_classes_of_cost_are_as_the_page_says() -> None:
    [told] = re.findall(r"by the hour: (.*?)\. ", PAGE, re.DOTALL)
    limits = {sign: int(usd) for sign, usd in re.findall(r"`(\$+)` below (\d+)", told)}
    [above] = re.findall(r"`(\$+)` above", told)
    seen = set()
    for gpu, usd in summary.CLASSES.items():
        for number in range(1, 17):
            for way, share in (("on-demand", 1.0), ("spot", 0.4)):
                hourly = usd * number * share
                expected = next((sign for sign, limit in limits.items() if hourly < limit), above)
                nodes = NodeSettings(
                    gpu=gpu, gpus_per_node=number, machine_type="g2-standard-8", provisioning=way
                )
                assert summary.cost_class(nodes).removesuffix(" (spot)") == expected, (gpu, number, way)
                seen.add(expected)
    assert seen == {*limits, above} == {"$", "$$", "$$$", "$$$$"}


def test_what_google_makes_anew_stands_first(monkeypatch: pytest.MonkeyPatch, lock: Lock) -> None:
    stack = on_google({"name": "chat"}, **{"google.nodes.driver": "LATEST"})
    former = on_google({"name": "chat"}).google
    assert former
    monkeypatch.setattr("modelcar.push.layers_there", lambda *_, **__: frozenset())
    lines: list[str] = []
    monkeypatch.setattr(pulumi.log, "info", lines.append)
    need = DiskNeed(10)
    outputs = {"models": {}, "googleMadeWith": replaced.made_with(former, {"gpu": need.disk})}
    facts = CheckedStack(stack, {"chat": lock}, {"chat": None}, {"gpu": need})
    asyncio.run(summary.tell(facts, outputs))
    first, head, *_ = lines[0].splitlines()
    assert first.startswith("REPLACED: pool gpu (driver DEFAULT → LATEST)")
    assert "chat stops until new nodes serve" in first
    assert head.startswith("model")


def test_google_that_is_taken_out_is_told(monkeypatch: pytest.MonkeyPatch, lock: Lock) -> None:
    stack = load({"name": "chat"}, registry="127.0.0.1:1/models")
    former = {"repository": {"repository.name": "modelcars"}, "nodes": {"name": "gpu"}}
    outputs = {"googleMadeWith": former, "nodePools": {"gpu": {"diskGb": 200}}}
    checked = CheckedStack(stack, {"chat": lock}, {"chat": None}, {}, deleted=("DELETED: Namespace a",))
    repository, pool = summary.made_anew(checked, outputs)
    assert repository.startswith("DELETED: repository modelcars, with all images")
    assert pool.startswith("DELETED: pool gpu")
    lines: list[str] = []
    monkeypatch.setattr(pulumi.log, "info", lines.append)
    asyncio.run(summary.tell(checked, outputs))
    assert lines[0].splitlines()[:3] == [repository, pool, "DELETED: Namespace a"]


NO_ANSWER = Exception(
    "invoke of readStackOutputs failed:\nerror: getting stack: Get https://api: i/o timeout"
)


def reading(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any], organization: str = "acme"
) -> dict[str, Any]:
    """Read the last run's outputs of a backend that answers so."""
    monkeypatch.setattr(pulumi, "get_organization", lambda: organization)
    monkeypatch.setattr(pulumi, "get_project", lambda: "modelcar")
    monkeypatch.setattr(pulumi, "get_stack", lambda: "dev")

    async def invoke(_: str, arguments: dict[str, str]) -> Any:
        answer = answers.get(arguments["name"], NO_ANSWER)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(pulumi.runtime, "invoke_async", invoke)
    return asyncio.run(summary.former_outputs())


@pytest.mark.parametrize("answer", [None, {}, {"outputs": None}, {"outputs": {}}])
def test_before_the_first_run_there_is_nothing_to_tell(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    assert reading(monkeypatch, {"acme/modelcar/dev": answer}) == {}


def test_a_backend_that_does_not_answer_is_no_new_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = {"removedModels": {"registry.example/models/old": {"model": "old"}}}
    assert reading(monkeypatch, {"acme/modelcar/dev": {"outputs": outputs}}) == outputs
    with pytest.raises(pulumi.RunError) as caught:
        reading(monkeypatch, {"dev": {"outputs": {}}})
    assert "acme/modelcar/dev: the outputs of the last run cannot be read" in str(caught.value)
    assert "i/o timeout" in str(caught.value)
    assert "fix: `pulumi stack output --stack acme/modelcar/dev`" in str(caught.value)


@pytest.mark.parametrize("times", [1, 9, 10])
def test_state_that_is_being_written_is_read_again(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    told, early = {"serviceName": "chat"}, [Exception("error: failed to load checkpoint: EOF")] * times
    answers = iter([*early, {"outputs": told}])

    class Answers(dict[str, Any]):
        def get(self, *_: Any) -> Any:
            return next(answers)

    monkeypatch.setattr("components.stack.other_stack.PAUSE", 0.0)
    if times < 10:
        assert reading(monkeypatch, Answers()) == told
    else:
        with pytest.raises(pulumi.RunError, match="failed to load checkpoint: EOF"):
            reading(monkeypatch, Answers())


def test_a_backend_of_files_may_know_stacks_without_projects(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"serviceName": "chat"}
    assert reading(monkeypatch, {"dev": {"outputs": told}}, "organization") == told
    with pytest.raises(pulumi.RunError, match=r"organization/modelcar/dev: .*i/o timeout"):
        reading(monkeypatch, {}, "organization")


def test_many_models_are_cut(monkeypatch: pytest.MonkeyPatch, lock: Lock) -> None:
    former = {f"m{n}": {"modelDigest": digest(lock)} for n in range(50)}
    lines = told(monkeypatch, load(*({"name": name} for name in former)), lock, former)
    assert lines[-1] == "… and 10 more"
