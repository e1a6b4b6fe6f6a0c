"""The outputs as an interface: the schema is the one that is documented, and no output goes by mistake."""

from __future__ import annotations

import asyncio
import copy
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


def properties(document: dict[str, Any]) -> dict[str, Any]:
    """Return the type of every output by its path; descriptions are no part of the interface."""
    found = {}

    def walk(path: str, node: dict[str, Any]) -> None:
        reference = node.get("$ref", "")
        node = document["$defs"][reference.rpartition("/")[2]] if reference else node
        parts = [walk_type(part) for part in node.get("anyOf", [node])]
        found[path] = (sorted(parts), path.rpartition(".")[2] in document.get("required", []))
        for name, part in node.get("properties", {}).items():
            walk(f"{path}.{name}", part)
        for part in [node, *node.get("anyOf", [])]:
            if isinstance(part.get("additionalProperties"), dict):
                walk(f"{path}.*", part["additionalProperties"])

    def walk_type(part: dict[str, Any]) -> str:
        return str(part.get("type", part.get("$ref", "")))

    for name, node in document["properties"].items():
        walk(name, node)
    return found


def broken(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the outputs that are gone, or of another type."""
    now = properties(after)
    return [path for path, kind in properties(before).items() if now.get(path) != kind]


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
