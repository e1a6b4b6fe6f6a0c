"""The types of the provider for other languages follow from the arguments of components."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement
from pydantic import BaseModel

from components.config.section import Section
from components.kserve.model_service import ModelServiceArgs
from components.kserve.server import VllmServer
from local import provider_types
from local.lock import pins
from local.provider_types import (
    CLUSTER,
    ELSEWHERE,
    IN_CLUSTER,
    LEFT_OUT,
    OF_A_MODEL,
    TARGET,
    all_types,
    camel,
    source,
)
from tests.conftest import PROJECT


def fields_of(owner: Any) -> set[str]:
    if isinstance(owner, type) and issubclass(owner, BaseModel):
        return set(owner.model_fields)
    return {field.name for field in dataclasses.fields(owner)}


def test_the_committed_types_are_those_of_the_code() -> None:
    assert TARGET.read_text() == source(all_types()), "run `make reference`"


def test_no_argument_of_a_component_is_missing() -> None:
    made = {one.name: {field.name for field in one.fields} for one in all_types()}
    for owner in (*ELSEWHERE, *IN_CLUSTER):
        wanted = {name for name in fields_of(owner) if (owner.__name__, name) not in LEFT_OUT}
        if "server" in wanted:
            wanted = wanted - {"server"} | {"vllm_server", "custom_server"}
        if owner in IN_CLUSTER:
            wanted = wanted - {"access"} | {field.name for field in CLUSTER}
        assert made[owner.__name__] == wanted, owner
    for section in [found for found in sections(Section) if found.__name__ in made]:
        assert made[section.__name__] == fields_of(section), section
    served = made["ServedModelArgs"]
    assert made["ModelServiceArgs"] <= served
    assert made["ModelcarImageArgs"] <= {*OF_A_MODEL, *made["ImageOptions"]} <= served | made["ImageOptions"]


def sections(owner: type[Section]) -> list[type[Section]]:
    return [one for below in owner.__subclasses__() for one in (below, *sections(below))]


def test_what_is_left_out_is_there() -> None:
    owners = {owner.__name__: owner for owner in (*ELSEWHERE, *IN_CLUSTER)}
    assert [key for key in LEFT_OUT if key[1] not in fields_of(owners[key[0]])] == []


def test_every_field_says_what_it_is_for_and_what_is_allowed() -> None:
    [server] = [one for one in all_types() if one.name == "VllmServer"]
    texts = {field.name: field.text for field in server.fields}
    assert texts["port"] == "Port that the server listens on. At least 1024, at most 65535. Default: 8080."
    assert texts["dtype"].endswith("One of: auto, half, float16, bfloat16, float, float32.")
    annotations = {field.name: (field.annotation, field.required) for field in server.fields}
    assert annotations["max_model_len"] == ("str", False), "a number, 32k or auto"
    assert annotations["image"] == ("str", True)
    assert annotations["lora_modules"] == ("list[LoraModule]", False)


def test_the_page_names_what_may_be_an_output() -> None:
    page = (PROJECT / "docs/package.md").read_text()
    told = page.partition("These arguments may be outputs of other resources:")[2].partition("Any other")[0]
    inputs = {
        camel(field.name)
        for one in all_types()
        for field in one.fields
        if field.annotation == "pulumi.Input[str]" or field.name == "labels"
    }
    assert set(re.findall(r"`([a-z]\w*)`", told)) == inputs


def test_what_another_resource_can_produce_is_an_input() -> None:
    inputs = {
        (one.name, field.name)
        for one in all_types()
        for field in one.fields
        if field.annotation == "pulumi.Input[str]"
    }
    for name in ("storage_uri", "namespace", "node_pool", "service_account", "kubeconfig"):
        assert ("ModelServiceArgs", name) in inputs
        assert ("ServedModelArgs", name) in inputs
    assert {("ModelcarImageArgs", "registry"), ("ServedModelArgs", "registry")} <= inputs
    assert {
        ("GpuNodePoolArgs", "cluster"),
        ("GpuNodePoolArgs", "location"),
        ("PullAccessArgs", "host"),
    } <= inputs
    assert {("ModelRegistryArgs", name) for name in ("project", "region", "reader")} <= inputs


def test_an_argument_without_a_text_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelServiceArgs, "__doc__", "Nothing.")
    with pytest.raises(ValueError, match=r"ModelServiceArgs\.storage_uri: its docstring does not say"):
        all_types()
    monkeypatch.undo()
    with pytest.raises(ValueError, match="no schema has such a type"):
        provider_types.Types().annotation(type(re.compile("")))
    assert VllmServer.__doc__


def test_the_packages_ranges_hold_what_this_repository_runs() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    locked = {Requirement(pin).name: Requirement(pin) for pin in pins()}
    ranges = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["google"]]
    for text in ranges:
        wanted = Requirement(text)
        [version] = [one.version for one in locked[wanted.name].specifier]
        assert version in wanted.specifier, text
        assert not any(one.operator == "==" for one in wanted.specifier), "others have versions of their own"
    for text in project["dependency-groups"]["program"]:
        assert Requirement(text).specifier == locked[Requirement(text).name].specifier, text
