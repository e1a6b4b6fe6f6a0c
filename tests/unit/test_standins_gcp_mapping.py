"""What the gcp stand-in reads out of pulumi_gcp and Google's API descriptions is really there."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator

import pytest

from local.standins.gcp_provider import discovery, sdk_types
from local.standins.gcp_provider.api_mapping import FREE_FORMAT, RENAMED, ROOTS
from local.standins.gcp_provider.discovery import Schema, api_field
from local.standins.gcp_provider.functions import FUNCTIONS
from local.standins.gcp_provider.kinds import KINDS
from local.standins.gcp_provider.sdk_types import Field, ListOf, MapOf, ObjectOf, Type, fields


def messages(known: dict[str, Field], api: str, schema: str) -> Iterator[tuple[str, str]]:
    """Yield (message, property) for all properties below a root, as the checks go through them."""
    for name, field in known.items():
        yield schema, name
        found = api_field(api, schema, name)
        if found is not None:
            yield from inner(field.type, api, found[1])


def inner(kind: Type, api: str, field: Schema) -> Iterator[tuple[str, str]]:
    if isinstance(kind, ListOf):
        yield from inner(kind.item, api, field.get("items") or field.get("additionalProperties") or field)
    elif isinstance(kind, ObjectOf) and "$ref" in field:
        yield from messages(fields(kind.module, kind.name), api, field["$ref"])


@pytest.fixture(scope="module")
def seen() -> set[tuple[str, str]]:
    return {
        pair
        for token, roots in ROOTS.items()
        for root in roots
        for pair in messages(KINDS[token].inputs(), root.api, root.schema)
    }


def test_every_renamed_property_is_on_both_sides(seen: set[tuple[str, str]]) -> None:
    """The provider has the property (it is met on the way down), and the API the field."""
    apis = {root.schema: root.api for roots in ROOTS.values() for root in roots}
    for (schema, name), target in RENAMED.items():
        assert (schema, name) in seen, (schema, name)
        api = apis.get(schema, "container.v1")
        assert api_field(api, schema, name) is not None, (schema, name, target)
    assert seen >= FREE_FORMAT


def test_every_type_has_a_root_in_an_installed_description() -> None:
    for token, roots in ROOTS.items():
        assert token in KINDS
        for root in roots:
            schemas = (discovery.document(root.api) or {})["schemas"]
            assert root.schema in schemas
            if root.method:
                assert root.method in str(schemas[root.schema])
    assert discovery.missing_notice() == ""


def test_what_matters_most_is_led_to_the_right_field() -> None:
    for schema, name, expected in (
        ("NodeConfig", "guestAccelerators", "accelerators"),
        ("NodeConfig", "gcfsConfig", "gcfsConfig"),
        ("Repository", "cleanupPolicies", "cleanupPolicies"),
    ):
        api = "artifactregistry.v1" if schema == "Repository" else "container.v1"
        found = api_field(api, schema, name)
        assert found is not None
        assert found[1] == (discovery.document(api) or {})["schemas"][schema]["properties"][expected]


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.class_name)
def test_the_table_names_only_what_the_package_has(kind: object) -> None:
    found = KINDS[next(token for token, other in KINDS.items() if other is kind)]
    inputs = found.inputs()
    assert inputs.keys() <= found.outputs().keys()
    for name in (found.name_property, found.place, *found.parents):
        assert not name or name in inputs or found.class_name in ("RepositoryIamMember", "IAMMember")
    for dotted in (*found.replacing, *found.in_place):
        names: dict[str, Field] = inputs
        for part in dotted.split("."):
            if part in ("location", "repository") and found.class_name == "IAMMember":
                break  # one list serves both kinds of grants
            assert part in names, (found.token, dotted)
            kind_of = names[part].type
            names = fields(kind_of.module, kind_of.name) if isinstance(kind_of, ObjectOf) else {}


def test_the_text_says_what_the_package_says() -> None:
    """One type is held against the imported package (importing all of it takes too long)."""
    module = importlib.import_module("pulumi_gcp.artifactregistry.repository")
    for name in ("RepositoryArgs", "_RepositoryState"):
        signature = inspect.signature(getattr(module, name).__init__).parameters
        read = {
            re.sub(r"(?<!^)([A-Z])", lambda match: f"_{match[1].lower()}", wire): field
            for wire, field in fields("artifactregistry/repository", name).items()
        }
        assert set(read) == set(signature) - {"__self__"}
        for python, field in read.items():
            assert field.required == (signature[python].default is inspect.Parameter.empty), python


def test_types_are_read_as_they_are_nested() -> None:
    config = fields("container/node_pool", "NodePoolArgs")["nodeConfig"].type
    assert config == ObjectOf("container/_inputs", "NodePoolNodeConfigArgs")
    known = fields("container/_inputs", "NodePoolNodeConfigArgs")
    assert isinstance(known["guestAccelerators"].type, ListOf)
    assert isinstance(known["labels"].type, MapOf)
    with pytest.raises(sdk_types.SdkError, match="has no class Missing"):
        fields("container/node_pool", "Missing")


def test_functions_are_where_the_table_says() -> None:
    for function in FUNCTIONS.values():
        assert function.arguments()
        assert fields(function.module, function.result)
