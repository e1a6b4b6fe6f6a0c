"""Which files make the model: a hub's repository and a folder are chosen from alike."""

from __future__ import annotations

import pytest

from modelcar.choosing import left_out

SHARDS = (
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
)
OTHERS = "the model for other programs"
TWICE = "the weights a second time"


@pytest.mark.parametrize(
    ("others", "why"),
    [
        (("original/model.safetensors", "original/config.json", "metal/model.bin"), None),
        (("original/consolidated.00.pth", "original/params.json", "metal/config.json"), None),
        (("consolidated.safetensors", "consolidated.safetensors.index.json"), TWICE),
        (("consolidated-00001-of-00001.safetensors",), TWICE),
        (("model.fp16-00001-of-00001.safetensors", "model.fp16.safetensors.index.json"), TWICE),
        (("model.fp16-00001-of-00001.safetensors", "model.safetensors.index.fp16.json"), TWICE),
        (("model.bf16.safetensors",), TWICE),
        (("model.safetensors",), TWICE),
        (("checkpoint-500/model.safetensors", "global_step10/x.pt", "optimizer.bin"), "a trainer's state"),
        (("runs/events.out.tfevents.1.host.2.0", "adapter/rng_state.pth"), "a trainer's state"),
    ],
)
def test_the_weights_are_taken_once(others: tuple[str, ...], why: str | None) -> None:
    found = left_out(["config.json", *SHARDS, *others])
    assert sorted(found) == sorted(others)
    assert set(found.values()) <= ({why} if why else {OTHERS, "the weights in another format"})


def test_a_model_in_two_precisions_is_taken_in_its_own() -> None:
    second = {
        "model.safetensors.index.fp32.json",
        "model.fp32-00001-of-00002.safetensors",
        "model.fp32-00002-of-00002.safetensors",
    }
    assert set(left_out(["config.json", "model.safetensors", *second])) == second
    assert not left_out(["config.json", *second]), "it has no other one"
    assert not left_out(["config.json", "model.safetensors", "model.vision.safetensors"]), "another part"


def test_an_index_beside_one_file_is_left_out_unless_there_is_more() -> None:
    index = "model.safetensors.index.json"
    assert left_out(["config.json", "model.safetensors", index]) == {index: TWICE}
    assert not left_out(["config.json", "model.safetensors", "mtp.safetensors", index])
    assert not left_out(["config.json", "model.safetensors", SHARDS[0], index]), "one shard is missing"


@pytest.mark.parametrize(
    "paths",
    [
        ["config.json", "original/model.safetensors", "pytorch_model.bin"],
        ["params.json", "consolidated-00001-of-00002.safetensors", "consolidated.safetensors.index.json"],
        ["model.safetensors", "adapters/sql/adapter_model.safetensors", "code/modeling_x.py"],
    ],
)
def test_what_is_there_once_is_taken(paths: list[str]) -> None:
    assert not left_out(paths)


def test_patterns_are_the_hubs() -> None:
    paths = ["a.json", "b/c.json", "b/d.txt", "e.txt", "optimizer.pt"]
    assert set(left_out(paths, allow=["*.json"])) == {"b/d.txt", "e.txt", "optimizer.pt"}
    assert set(left_out(paths, allow=["b/"])) == {"a.json", "e.txt", "optimizer.pt"}
    assert set(left_out(paths, allow=["*"], ignore=["b/"])) == {"b/c.json", "b/d.txt"}


@pytest.mark.parametrize("folder", ["draft", "adapters/fr", "2_Dense"])
def test_pickled_weights_of_a_part_that_has_no_others_are_no_duplicate(folder: str) -> None:
    config = "adapter_config.json" if folder == "adapters/fr" else "config.json"
    own = [f"{folder}/{config}", f"{folder}/pytorch_model.bin"]
    there = ["config.json", "model.safetensors", "pytorch_model.bin", *own]
    assert left_out(there) == {"pytorch_model.bin": "the weights in another format"}
    assert f"{folder}/pytorch_model.bin" in left_out([*there, f"{folder}/model.safetensors"])
    assert f"{folder}/training_args.bin" in left_out([*there, f"{folder}/training_args.bin"])


@pytest.mark.parametrize("folder", ["openvino", "onnx/cpu", "checkpoint-500"])
def test_pickled_weights_for_others_are_left_out_with_their_folder(folder: str) -> None:
    own = [f"{folder}/config.json", f"{folder}/pytorch_model.bin"]
    assert f"{folder}/pytorch_model.bin" in left_out(["config.json", "model.safetensors", *own])
