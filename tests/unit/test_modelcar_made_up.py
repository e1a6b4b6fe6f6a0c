"""Made-up models: true dimensions, the same bytes everywhere, and laid out like a download."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from modelcar.__main__ import main
from modelcar.errors import InputError
from modelcar.made_up import PRESETS, make_made_up_model, size_of
from modelcar.qwen2 import TOKENS, shapes
from modelcar.tiny_model import make_tiny_model
from modelcar.weights import read_weights

#: A change here means that figures measured with these models are of other weights than before.
SMALL_SHA256 = "1c10b796c2caff4d501cecc23a6b7881eb07aeab6492f8c0c4959e19edcc0568"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def tensors(folder: Path) -> dict[str, np.ndarray]:
    """Read every tensor; bfloat16 is the upper half of a float32."""
    found = {}
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            data = file.read()
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                raw = np.frombuffer(data[begin:end], "<u2").astype("<u4") << 16
                found[name] = raw.view("<f4").reshape(entry["shape"])
    return found


@pytest.mark.parametrize(
    ("like", "parameters"), [("qwen2.5-0.5b", 494_032_768), ("qwen2.5-7b", 7_615_616_512)]
)
def test_parameters_are_as_many_as_the_models_cards_say(like: str, parameters: int) -> None:
    assert sum(math.prod(shape) for shape in shapes(PRESETS[like]).values()) == parameters
    assert size_of(like) == 2 * parameters


def test_bytes_are_the_same_whatever_the_number_of_workers(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        one = contents(make_made_up_model(tmp_path / "one", "small", workers=1))
    finally:
        os.umask(before)
    assert one == contents(make_made_up_model(tmp_path / "many", "small", workers=7))
    assert hashlib.sha256(one["model.safetensors"]).hexdigest() == SMALL_SHA256
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o755
    other = contents(make_made_up_model(tmp_path / "other", "small", seed=1))
    assert [name for name in one if one[name] != other[name]] == ["model.safetensors"]


def test_shards_hold_the_same_tensors_and_pass_the_check_of_weights(tmp_path: Path) -> None:
    whole = make_made_up_model(tmp_path / "whole", "small")
    cut = make_made_up_model(tmp_path / "cut", "small", shard=700_000)
    shards = sorted(path.name for path in cut.glob("*.safetensors"))
    assert len(shards) > 2
    assert shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    index = json.loads((cut / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(shards)
    assert index["metadata"]["total_size"] == size_of("small")
    first, second = tensors(whole), tensors(cut)
    assert first.keys() == second.keys()
    assert all((first[name] == second[name]).all() for name in first)
    weights = read_weights(cut)
    assert weights.config
    assert weights.config.dtype == "bfloat16"
    assert weights.parameters == size_of("small") // 2


def test_numbers_are_small_and_spread_as_the_config_says(tmp_path: Path) -> None:
    folder = make_made_up_model(tmp_path / "m", "small")
    config = json.loads((folder / "config.json").read_text())
    found = tensors(folder)
    assert all(np.isfinite(tensor).all() for tensor in found.values())
    projection = found["model.layers.0.mlp.up_proj.weight"]
    assert abs(projection.std() / config["initializer_range"] - 1) < 0.01
    assert abs(projection.mean()) < 0.001
    assert not (projection == found["model.layers.1.mlp.up_proj.weight"]).all()
    assert (found["model.norm.weight"] == 1).all()
    with safe_open(folder / "model.safetensors", framework="numpy") as file:
        assert file.metadata()["format"] == "pt"  # what transformers insists on


def test_the_best_token_is_always_one_that_can_be_read(tmp_path: Path) -> None:
    """Ids beyond the tokenizer have no score; a server that meets one all the same goes on."""
    folder = make_made_up_model(tmp_path / "m", "small")
    head = tensors(folder)["lm_head.weight"]
    assert len(head) == 1024 > TOKENS
    assert (head[TOKENS:] == 0).all()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    scored = [number for number, row in enumerate(head) if row.any()]
    assert len(scored) > 100
    assert all(tokenizer.decode([number]).isprintable() for number in scored)
    stream = DecodeStream([])
    assert stream.step(tokenizer, scored[0])
    assert not stream.step(tokenizer, 1000)
    assert stream.step(tokenizer, scored[1])


def test_a_whole_model_is_left_alone_and_a_damaged_one_is_made_anew(tmp_path: Path) -> None:
    folder = make_made_up_model(tmp_path / "m", "small")
    before = {path: path.stat().st_mtime_ns for path in [folder, *folder.iterdir()]}
    make_made_up_model(folder, "small")
    assert before == {path: path.stat().st_mtime_ns for path in [folder, *folder.iterdir()]}
    whole = contents(folder)
    os.truncate(folder / "model.safetensors", 5000)
    make_made_up_model(folder, "small")
    assert contents(folder) == whole
    assert list(tmp_path.iterdir()) == [folder]


def test_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        make_made_up_model(tmp_path / "m", "small")
    assert list(tmp_path.iterdir()) == []


def test_wrong_input_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tiny_model(tmp_path / "tiny")
    with pytest.raises(InputError, match="holds files that this program did not make"):
        make_made_up_model(tmp_path / "tiny", "small")
    with pytest.raises(InputError, match="seed: -1"):
        make_made_up_model(tmp_path / "m", "small", seed=-1)
    assert main(["made-up", str(tmp_path / "m"), "--like", "qwen2.5-9b"]) == 2
    assert "qwen2.5-0.5b, qwen2.5-7b" in capsys.readouterr().err
    assert main(["made-up", str(tmp_path / "m"), "--like", "small"]) == 0
    assert (tmp_path / "m" / "model.safetensors").exists()
