"""Values on the wire, what counts as a difference, and names."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import struct_pb2
from pulumi.runtime import rpc
from pulumi.runtime.proto import provider_pb2

from standins.kubernetes_provider import differences, naming, properties
from standins.kubernetes_provider.properties import UNKNOWN, Secret

KIND = differences.Kind
URN = "urn:pulumi:local::modelcar::kubernetes:core/v1:ConfigMap::settings"


def test_signatures_are_those_of_the_sdk() -> None:
    assert rpc._special_sig_key == properties.SIGNATURE_KEY
    assert rpc._special_secret_sig == properties.SECRET_SIGNATURE
    assert properties.UNKNOWN_STRING == rpc.UNKNOWN


def test_values_survive_the_wire() -> None:
    value = {
        "text": "a",
        "whole": 3,
        "part": 0.5,
        "yes": True,
        "nothing": None,
        "list": [1, {"b": Secret({"c": "d"})}],
        "later": UNKNOWN,
        "empty": {},
        "none": [],
    }
    assert properties.decode(properties.encode(value)) == value


def test_whole_numbers_come_back_as_int() -> None:
    decoded = properties.decode(properties.encode({"replicas": 1.0}))
    assert isinstance(decoded["replicas"], int)


def test_output_values_are_understood() -> None:
    struct = struct_pb2.Struct()
    known: dict[str, Any] = {
        properties.SIGNATURE_KEY: properties.OUTPUT_SIGNATURE,
        "value": "x",
        "secret": True,
        "dependencies": ["urn"],
    }
    struct.update({"known": known, "later": {properties.SIGNATURE_KEY: properties.OUTPUT_SIGNATURE}})
    assert properties.decode(struct) == {"known": Secret("x"), "later": UNKNOWN}


def test_assets_are_refused() -> None:
    struct = struct_pb2.Struct()
    struct.update({"a": {properties.SIGNATURE_KEY: "c44067f5952c0a294b673a41bacd8c17", "text": "x"}})
    with pytest.raises(properties.UnsupportedValueError, match="asset"):
        properties.decode(struct)


def test_unknowns_and_secrets_are_found_inside() -> None:
    assert properties.has_unknown({"a": [Secret({"b": UNKNOWN})]})
    assert not properties.has_unknown({"a": [Secret("b")]})
    assert properties.plain({"a": [Secret({"b": Secret(1)})]}) == {"a": [{"b": 1}]}


def test_secret_inputs_stay_secret_in_the_state() -> None:
    inputs = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a"},
        "data": {"token": Secret("t"), "open": "o"},
    }
    live = {**properties.plain(inputs), "metadata": {"name": "a", "uid": "u", "managedFields": [{}]}}
    state = properties.checkpoint(live, inputs, "manager", "v1")
    assert state["data"] == {"token": Secret("t"), "open": "o"}
    assert state["__inputs"]["data"]["token"] == Secret("t")
    assert state["metadata"] == {"name": "a", "uid": "u"}
    assert (state["__fieldManager"], state["__initialApiVersion"]) == ("manager", "v1")


def test_data_of_a_secret_is_secret_although_the_program_did_not_say_so() -> None:
    inputs = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringData": {"pw": "x"}}
    live = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"pw": "eA=="}}
    state = properties.checkpoint(live, inputs, "m", "v1")
    assert state["data"] == Secret({"pw": "eA=="})
    assert state["__inputs"]["stringData"] == Secret({"pw": "x"})


def test_state_splits_into_inputs_and_live_object() -> None:
    inputs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": Secret("v")}}
    state = properties.checkpoint({**properties.plain(inputs), "extra": 1}, inputs, "m", "v1")
    old_inputs, live = properties.split_state(properties.decode(properties.encode(state)))
    assert old_inputs == properties.plain(inputs)
    assert live == {**properties.plain(inputs), "extra": 1}


def test_schema_extensions_get_their_dashes_back() -> None:
    spelled = {"spec": {"x_kubernetes_preserve_unknown_fields": True, "other_key": None}}
    assert properties.to_object(spelled) == {"spec": {"x-kubernetes-preserve-unknown-fields": True}}
    assert properties.from_object({"x-kubernetes-a": [{"x-kubernetes-b": 1}]}) == {
        "x_kubernetes_a": [{"x_kubernetes_b": 1}]
    }


# --- differences


def changes(old: dict[str, Any], new: dict[str, Any], **flags: bool) -> dict[str, str]:
    replacing = differences.replacing_paths(
        new,
        config_maps_mutable=flags.get("config_maps_mutable", False),
        secrets_mutable=flags.get("secrets_mutable", False),
    )
    found = differences.differences(old, new, replacing)
    return {path: KIND.Kind.Name(change.kind) for path, change in found.items()}


def deployment(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": spec}


def test_no_change_is_no_difference_whatever_the_number_type() -> None:
    assert changes(deployment(replicas=1, x=0.5), deployment(replicas=1.0, x=0.5)) == {}


def test_a_flag_is_not_a_number() -> None:
    assert changes(deployment(x=1), deployment(x=True)) == {"spec.x": "UPDATE"}


def test_changes_are_named_by_path() -> None:
    old = deployment(
        template={"containers": [{"image": "a", "gone": 1}, {"image": "c"}]}, labels={"a.b/c": "1"}
    )
    new = deployment(template={"containers": [{"image": "b", "new": 2}]}, labels={"a.b/c": "2"})
    assert changes(old, new) == {
        "spec.template.containers[0].image": "UPDATE",
        "spec.template.containers[0].gone": "DELETE",
        "spec.template.containers[0].new": "ADD",
        "spec.template.containers[1]": "DELETE",
        'spec.labels["a.b/c"]': "UPDATE",
    }


def test_an_unknown_value_is_a_change() -> None:
    assert changes(deployment(uri="x"), deployment(uri=UNKNOWN)) == {"spec.uri": "UPDATE"}


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ({"metadata": {"name": "b"}}, {}, "metadata.name"),
        ({"metadata": {"name": "a", "namespace": "n"}}, {}, "metadata.namespace"),
        ({"apiVersion": "apps/v2"}, {}, "apiVersion"),
        ({"spec": {"selector": {"x": 1}}}, {"spec": {"selector": {"x": 2}}}, "spec.selector.x"),
    ],
)
def test_what_cannot_change_in_place_replaces(old: dict[str, Any], new: dict[str, Any], path: str) -> None:
    found = changes({**deployment(), **old}, {**deployment(), **new})
    assert found[path].endswith("_REPLACE")


def test_a_config_map_is_replaced_unless_the_provider_says_it_is_mutable() -> None:
    old = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "1"}}
    new = {**old, "data": {"k": "2"}}
    assert changes(old, new) == {"data.k": "UPDATE_REPLACE"}
    assert changes(old, new, config_maps_mutable=True) == {"data.k": "UPDATE"}
    assert changes(old, {**new, "immutable": True}, config_maps_mutable=True)["data.k"] == "UPDATE_REPLACE"


def test_what_the_server_added_is_pruned_away() -> None:
    live = {"spec": {"a": 1, "defaulted": 2, "list": [{"n": 1, "d": 2}, {"injected": 1}]}, "status": {}}
    wanted = {"spec": {"a": 5, "list": [{"n": 1}]}}
    assert differences.prune(live, wanted) == {"spec": {"a": 1, "list": [{"n": 1}]}}


@pytest.mark.parametrize(
    ("pattern", "covered"), [("spec.a", True), ("spec", True), ("spec.ab", False), ("spec.a[0].b", True)]
)
def test_ignored_paths_cover_what_is_below(pattern: str, covered: bool) -> None:
    assert differences.matches(pattern, "spec.a[0].b") is covered


# --- names


def test_a_given_name_is_kept() -> None:
    wanted: dict[str, Any] = {"metadata": {"name": UNKNOWN}}
    naming.assign_name(wanted, {}, URN, b"seed", None)
    assert wanted == {"metadata": {"name": UNKNOWN}}


def test_an_automatic_name_follows_from_the_seed_and_stays() -> None:
    first: dict[str, Any] = {"metadata": {}}
    naming.assign_name(first, {}, URN, b"one", None)
    assert first["metadata"]["name"].startswith("settings-")
    assert first["metadata"]["annotations"] == {naming.AUTONAMED: "true"}

    other: dict[str, Any] = {"metadata": {}}
    naming.assign_name(other, {}, URN, b"two", None)
    assert other["metadata"]["name"] != first["metadata"]["name"]

    later: dict[str, Any] = {"metadata": {}}
    naming.assign_name(later, first, URN, b"two", None)
    assert later["metadata"]["name"] == first["metadata"]["name"]


def test_the_projects_naming_rule_is_followed() -> None:
    options = provider_pb2.CheckRequest.AutonamingOptions
    wanted: dict[str, Any] = {"metadata": {}}
    naming.assign_name(wanted, {}, URN, b"", options(proposed_name="theirs", mode=options.ENFORCE))
    assert wanted["metadata"]["name"] == "theirs"
    with pytest.raises(naming.NamingError, match=r"metadata\.name"):
        naming.assign_name({"metadata": {}}, {}, URN, b"", options(mode=options.DISABLE))


def test_a_name_left_to_the_server_is_refused() -> None:
    with pytest.raises(naming.NamingError, match="generateName"):
        naming.assign_name({"metadata": {"generateName": "a-"}}, {}, URN, b"", None)
