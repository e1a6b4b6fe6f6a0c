"""The outputs as an interface: the schema is the one that is documented, and no output goes by mistake."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import jsonschema
import pulumi
import pytest

from components.config.stack import Stack
from components.stack import model, outputs
from components.stack.output_schema import OF_ONLY_MODEL, VERSION, ModelOutputs, schema, text
from components.stack.stack_reader import parse
from tests.unit.test_components_models import load, on_google

PROJECT = Path(__file__).parents[2]
RELEASED = sorted((PROJECT / "tests/fixtures").glob("outputs-*.schema.json"))
DIGEST = "sha256:" + "a" * 64

MODEL: dict[str, Any] = {
    "modelDigest": DIGEST,
    "storageUri": f"oci://registry.example/models/chat@{DIGEST}",
    "imageReference": "registry.example/models/chat:aaaaaaaaaaaaaaaa",
    "lockDigest": DIGEST,
    "modelBytes": 10,
    "serviceName": "chat",
    "namespace": "models",
    "servedModelName": "chat",
    "endpoint": "http://chat-predictor.models.svc.cluster.local",
    "deploymentMode": "Standard",
    "idleCost": ["registry.example/models/chat: storage"],
}
OUTPUTS: dict[str, Any] = {
    "schemaVersion": VERSION,
    "models": {"chat": MODEL},
    "registry": "registry.example/models",
}


def faults(outputs: dict[str, Any]) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(schema()).iter_errors(outputs)]


def test_the_documented_schema_is_the_programs() -> None:
    assert (PROJECT / "docs/outputs.schema.json").read_text() == text(), (
        "python -m components.stack.output_schema > docs/outputs.schema.json"
    )


#: What a schema says of a value beside its type, that a reader may have relied on.
LIMITS = ("pattern", "format", "const", "minimum", "maximum", "minLength", "maxLength")


@dataclasses.dataclass(frozen=True)
class Known:
    """What a reader may rely on. limits: by name. values: of an enumeration; None where there is none."""

    types: tuple[str, ...]
    required: bool
    limits: tuple[tuple[str, Any], ...] = ()
    values: frozenset[Any] | None = None

    def holds_for(self, later: Known | None) -> bool:
        """Tell whether a reader who knows this takes what comes later; that may say more, and allow less."""
        return (
            later is not None
            and (self.types, self.required) == (later.types, later.required)
            and set(self.limits) <= set(later.limits)
            and (self.values is None or (later.values is not None and later.values <= self.values))
        )


def properties(document: dict[str, Any]) -> dict[str, Known]:
    """Return what is known of every output by its path; descriptions are no part of the interface."""
    found: dict[str, Known] = {}

    def walk(path: str, node: dict[str, Any], required: bool) -> None:
        parts = node.get("anyOf", [node])
        limits = [(name, part[name]) for part in parts for name in LIMITS if name in part]
        values = [value for part in parts for value in part.get("enum", ())]
        types = sorted(str(part.get("type", part.get("$ref", ""))) for part in parts)
        found[path] = Known(tuple(types), required, tuple(limits), frozenset(values) if values else None)
        for part in parts:
            if "$ref" in part:
                within(f"{path}.", document["$defs"][part["$ref"].rpartition("/")[2]])
            for key, place in (("additionalProperties", ".*"), ("items", "[]")):
                if isinstance(part.get(key), dict):
                    walk(f"{path}{place}", part[key], True)

    def within(path: str, owner: dict[str, Any]) -> None:
        for name, node in owner.get("properties", {}).items():
            walk(f"{path}{name}", node, name in owner.get("required", ()))

    within("", document)
    return found


def broken(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the outputs that are gone, or that a reader of before does not take any more."""
    now = properties(after)
    return [path for path, known in properties(before).items() if not known.holds_for(now.get(path))]


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.name)
def test_no_output_goes_without_another_major_version(path: Path) -> None:
    released = json.loads(path.read_text())
    if released["x-version"].partition(".")[0] == VERSION.partition(".")[0]:
        assert broken(released, schema()) == [], (
            "an output went or changed: raise the first number of VERSION"
        )


def test_a_new_output_raises_the_second_number() -> None:
    newest = json.loads(RELEASED[-1].read_text())
    if properties(newest) != properties(schema()):
        assert newest["x-version"] != VERSION, (
            "outputs are new: raise the second number of VERSION, and keep the schema in tests/fixtures"
        )


def test_the_comparison_sees_what_a_reader_would() -> None:
    one_less = copy.deepcopy(schema())
    del one_less["$defs"]["ModelOutputs"]["properties"]["endpoint"]
    assert broken(schema(), one_less) == ["models.*.endpoint"]
    retyped = copy.deepcopy(schema())
    retyped["$defs"]["ModelOutputs"]["properties"]["modelBytes"]["type"] = "string"
    assert broken(schema(), retyped) == ["models.*.modelBytes"]
    optional = copy.deepcopy(schema())
    optional["required"].remove("registry")
    assert broken(schema(), optional) == ["registry"]
    more = copy.deepcopy(schema())
    more["properties"]["another"] = {"type": "string"}
    assert broken(schema(), more) == []


@pytest.mark.parametrize(
    ("output", "change", "breaks"),
    [
        ("deploymentMode", {"enum": ["Standard", "Knative", "LLM"]}, True),  # a reader of 1.2 refuses LLM
        ("deploymentMode", {"enum": ["Raw"]}, True),
        ("deploymentMode", {"enum": None}, True),
        ("deploymentMode", {"enum": ["Standard"]}, False),
        ("modelDigest", {"pattern": "^sha512:"}, True),
        ("modelDigest", {"pattern": None}, True),
        ("modelBytes", {"minimum": None}, True),
        ("endpoint", {"pattern": "^http://"}, False),
        ("idleCost", {"items": {"type": "integer"}}, True),
        ("nodePool", {"anyOf": [{"type": "integer"}, {"type": "null"}]}, True),
    ],
)
def test_the_comparison_sees_values_that_a_reader_would_refuse(
    output: str, change: dict[str, Any], breaks: bool
) -> None:
    after = copy.deepcopy(schema())
    node = after["$defs"]["ModelOutputs"]["properties"][output]
    node.update(change)
    for name in [name for name, value in change.items() if value is None]:
        del node[name]
    assert bool(broken(schema(), after)) is breaks
    assert properties(schema()) != properties(after), "which raises the second number at least"


def test_the_comparison_sees_an_output_of_a_model_that_may_be_left_out() -> None:
    after = copy.deepcopy(schema())
    after["$defs"]["ModelOutputs"]["required"].remove("endpoint")
    assert broken(schema(), after) == ["models.*.endpoint"]


def test_outputs_are_held_to_the_schema() -> None:
    assert faults(OUTPUTS) == []
    assert faults({**OUTPUTS, **{name: MODEL[name] for name in OF_ONLY_MODEL}}) == []
    assert faults({**OUTPUTS, "models": {"chat": {**MODEL, "storageUri": "oci://x/chat:latest"}}})
    assert faults({key: value for key, value in OUTPUTS.items() if key != "models"})


def test_what_settings_alone_tell_keeps_to_the_schema() -> None:
    stacks = [
        load({"name": "chat"}),
        on_google({"name": "chat"}),
        load({"name": "c"}, deploymentMode="Knative"),
    ]
    for stack in stacks:
        told = model.settings_outputs(stack.shared, None)
        assert ModelOutputs.model_validate({**MODEL, **told})
        assert faults({**OUTPUTS, "models": {"chat": {**MODEL, **told}}}) == []
    assert (
        model.settings_outputs(stacks[0].shared, None)["endpoint"]
        == "http://chat-predictor.kserve-demo.svc.cluster.local"
    )
    assert (
        model.settings_outputs(stacks[2].shared, None)["endpoint"]
        == "http://c-predictor.kserve-demo.svc.cluster.local"
    )


def exported(
    monkeypatch: pytest.MonkeyPatch,
    stack: Stack,
    served: dict[str, Any],
    failed: set[str],
    former: dict[str, Any],
) -> dict[str, Any]:
    """Return what an `up` exports; former: outputs of the last one."""
    found: dict[str, Any] = {}
    monkeypatch.setattr(pulumi, "export", found.__setitem__)
    monkeypatch.setattr(outputs, "end_with", lambda _: None)
    asyncio.run(outputs.export(stack, None, served, {name: Exception("no GPU") for name in failed}, former))
    return found


def test_a_model_that_fails_while_it_is_renamed_is_told_as_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = load({"name": "helper", "formerNames": ["chat", "assistant"]}, {"name": "code"})
    found = exported(monkeypatch, renamed, {"code": {**MODEL, "serviceName": "code"}}, {"helper"}, OUTPUTS)
    assert found["models"]["helper"] == MODEL, "programs of others read it"
    assert set(found["models"]) == {"helper", "code"}
    assert "removedModels" not in found
    # The newest of its names counts; and what never served is not told.
    newer = {"chat": MODEL, "assistant": {**MODEL, "modelBytes": 11}}
    found = exported(monkeypatch, renamed, {}, {"helper", "code"}, {**OUTPUTS, "models": newer})
    assert found["models"] == {"helper": newer["assistant"]}


def test_a_repository_that_is_served_again_is_no_longer_told_as_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a run that fails Pulumi keeps each output of the last one that this one does not tell."""
    stack = load({"name": "chat"}, {"name": "code"})
    place = stack.models[0].place.repository
    former = {"models": {}, "removedModels": {place: {"model": "chat", "since": "2026-01-01"}}}
    told = exported(monkeypatch, stack, {"chat": MODEL}, {"code"}, former)
    assert told["removedModels"] == {}


def test_a_model_that_is_there_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {**MODEL, "modelBytes": 12}
    renamed = load({"name": "helper", "formerNames": ["chat"]})
    assert exported(monkeypatch, renamed, {"helper": now}, set(), OUTPUTS)["models"] == {"helper": now}


def test_a_reader_gets_types_and_takes_what_a_later_minor_version_adds() -> None:
    found = parse("acme/modelcar/prod", {**OUTPUTS, "schemaVersion": "1.9", "later": 1})
    assert found.models["chat"].storage_uri == MODEL["storageUri"]
    assert found.node_pools is None


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ({}, "acme/modelcar/prod has no outputs of a modelcar stack"),
        ({**OUTPUTS, "schemaVersion": "2.0"}, "in version 2.0, and this reader knows 1.x"),
        ({**OUTPUTS, "models": {"chat": {**MODEL, "modelBytes": "ten"}}}, "models.chat.modelBytes"),
    ],
)
def test_a_reader_says_what_is_wrong(outputs: dict[str, Any], text: str) -> None:
    with pytest.raises(pulumi.RunError) as caught:
        parse("acme/modelcar/prod", outputs)
    assert text in str(caught.value)
