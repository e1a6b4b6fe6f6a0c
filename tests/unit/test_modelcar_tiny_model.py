"""The tiny model: the same everywhere, complete, and laid out like a download."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from safetensors import safe_open
from tokenizers import Tokenizer

from modelcar.errors import InputError
from modelcar.qwen2 import SPECIAL_TOKENS
from modelcar.tiny_model import make_tiny_model
from modelcar.weights import read_weights

#: A change here means that everybody's tiny model changes, and with it every digest made from it.
WEIGHTS_SHA256 = "dec08048fecfe2e50af7edd6665d89db2c16a93398c8a16f963f6ae9c39b53d2"
FILES = {
    "config.json",
    "generation_config.json",
    "merges.txt",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_same_bytes_at_another_place_and_under_another_umask(tmp_path: Path) -> None:
    first = make_tiny_model(tmp_path / "a")
    before = os.umask(0o077)
    try:
        second = make_tiny_model(tmp_path / "deep" / "b")
    finally:
        os.umask(before)
    assert contents(first) == contents(second)
    assert contents(first).keys() == FILES
    assert second.stat().st_mode & 0o777 == 0o755
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in second.iterdir())


def test_weights_are_those_of_every_other_machine(tmp_path: Path) -> None:
    weights = (make_tiny_model(tmp_path / "tiny") / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == WEIGHTS_SHA256
    assert 3e6 < len(weights) < 6e6


def test_another_seed_is_another_model_of_the_same_shape(tmp_path: Path) -> None:
    first, second = (
        contents(make_tiny_model(tmp_path / "a")),
        contents(make_tiny_model(tmp_path / "b", seed=1)),
    )
    assert {name for name in FILES if first[name] != second[name]} == {"model.safetensors"}
    assert len(first["model.safetensors"]) == len(second["model.safetensors"])


def test_second_call_changes_nothing(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "tiny")
    before = {path: path.stat().st_mtime_ns for path in [folder, *folder.iterdir()]}
    assert make_tiny_model(folder) == folder
    assert before == {path: path.stat().st_mtime_ns for path in [folder, *folder.iterdir()]}


def test_damaged_model_is_made_anew_and_nothing_else_is_left(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "tiny")
    whole = contents(folder)
    (folder / "config.json").write_text("{}")
    make_tiny_model(folder)
    assert contents(folder) == whole
    assert list(tmp_path.iterdir()) == [folder]


def test_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        make_tiny_model(tmp_path / "tiny")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["model.safetensors", "notes.txt"])
def test_a_folder_with_other_files_is_not_touched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(InputError, match="holds files that this program did not make") as caught:
        make_tiny_model(tmp_path)
    assert caught.value.problems[0].key == str(tmp_path)
    assert contents(tmp_path) == {name: b"precious"}


def test_negative_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="seed: -1"):
        make_tiny_model(tmp_path / "tiny", seed=-1)


def test_tensors_are_those_of_a_qwen2_with_tied_embeddings(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "tiny")
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForCausalLM"]
    with safe_open(folder / "model.safetensors", framework="numpy") as file:
        names = set(file.keys())
        assert file.metadata()["format"] == "pt"  # what transformers insists on
        table = file.get_tensor("model.embed_tokens.weight")
        projection = file.get_tensor("model.layers.0.mlp.up_proj.weight")
        norm = file.get_tensor("model.norm.weight")
    assert table.shape == (config["vocab_size"], config["hidden_size"])
    assert abs(projection.std() / config["initializer_range"] - 1) < 0.01
    assert abs(projection.mean()) < 0.001
    assert (norm == 1).all()
    assert "lm_head.weight" not in names
    for layer in range(config["num_hidden_layers"]):
        attention = f"model.layers.{layer}.self_attn."
        assert {attention + f"{part}_proj.bias" for part in "qkv"} <= names
        assert attention + "o_proj.bias" not in names


def test_tokenizer_writes_back_any_text_and_knows_every_id(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "tiny")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = "Kubernetes is the best thing — été 東京 \U0001f680\n\tend"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    config = json.loads((folder / "config.json").read_text())
    assert tokenizer.get_vocab_size() == config["vocab_size"]
    assert [tokenizer.encode(token).ids for token in SPECIAL_TOKENS] == [[317], [318], [319]]
    assert config["eos_token_id"] == tokenizer.token_to_id("<|endoftext|>")


def test_it_passes_the_check_of_weights(tmp_path: Path) -> None:
    weights = read_weights(make_tiny_model(tmp_path / "tiny"))
    assert weights.config
    assert weights.config.architectures == ("Qwen2ForCausalLM",)
    assert weights.config.dtype == "float32"
    assert weights.parameters == 1_026_176
