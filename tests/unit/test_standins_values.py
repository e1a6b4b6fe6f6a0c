"""Values on the wire, and paths of properties."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import struct_pb2
from pulumi.runtime import rpc

from local.standins import differences, properties
from local.standins.properties import UNKNOWN, Secret


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


def test_secrets_are_found_inside() -> None:
    assert properties.plain({"a": [Secret({"b": Secret(1)})]}) == {"a": [{"b": 1}]}


def test_secret_inputs_stay_secret_in_the_state() -> None:
    inputs = {"labels": {"token": Secret("t"), "open": "o"}, "nodes": [Secret("n")]}
    marked = properties.mark_secrets({"labels": {"token": "t", "open": "o"}, "nodes": ["n"], "id": 1}, inputs)
    assert marked == {"labels": {"token": Secret("t"), "open": "o"}, "nodes": Secret(["n"]), "id": 1}


# --- paths


@pytest.mark.parametrize(
    ("path", "written"),
    [
        (("spec", "containers", 0, "image"), "spec.containers[0].image"),
        (("metadata", "labels", "a.b/c"), 'metadata.labels["a.b/c"]'),
    ],
)
def test_paths_are_written_as_pulumi_does(path: tuple[str | int, ...], written: str) -> None:
    assert differences.property_path(path) == written


def test_what_the_server_added_is_pruned_away() -> None:
    live = {"spec": {"a": 1, "defaulted": 2, "list": [{"n": 1, "d": 2}, {"injected": 1}]}, "status": {}}
    wanted = {"spec": {"a": 5, "list": [{"n": 1}]}}
    assert differences.prune(live, wanted) == {"spec": {"a": 1, "list": [{"n": 1}]}}


@pytest.mark.parametrize(
    ("pattern", "covered"), [("spec.a", True), ("spec", True), ("spec.ab", False), ("spec.a[0].b", True)]
)
def test_ignored_paths_cover_what_is_below(pattern: str, covered: bool) -> None:
    assert differences.matches(pattern, "spec.a[0].b") is covered
