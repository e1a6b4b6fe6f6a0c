"""The demo's model: it says one text by heart, the same everywhere."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from modelcar.demo_model import TEXT, make_demo_model, pieces
from modelcar.lock_reader import read_lock
from modelcar.tiny_model import make_tiny_model
from modelcar.weights import read_weights
from tests.conftest import PROJECT


def said(folder: Path, question: str) -> str:
    """Return what a model without attention and feed-forward parts answers: the demo's are zero."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    ids = tokenizer.encode(question).ids
    answer: list[int] = []
    while len(answer) < 100:
        state = tensors["model.embed_tokens.weight"][(ids + answer)[-1]]
        state = state / np.sqrt((state**2).mean() + config["rms_norm_eps"])
        answer.append(int((tensors["lm_head.weight"] @ state).argmax()))
        if answer[-1] == config["eos_token_id"]:
            return str(tokenizer.decode(answer))
    raise AssertionError("it does not end")


@pytest.mark.parametrize("question", ["What are you?", "Kubernetes is", "x", "a\n", "été", "<|im_start|>"])
def test_it_says_its_text_whatever_it_is_asked(tmp_path: Path, question: str) -> None:
    assert said(make_demo_model(tmp_path / "demo"), question) == TEXT


def test_nothing_is_added_to_what_the_embedding_says(tmp_path: Path) -> None:
    tensors = load_file(make_demo_model(tmp_path / "demo") / "model.safetensors")
    added = [name for name in tensors if name.endswith(("o_proj.weight", "down_proj.weight"))]
    assert len(added) == 8
    assert not any(tensors[name].any() for name in added)


def test_each_piece_is_one_token_and_no_other_models(tmp_path: Path) -> None:
    assert "".join(pieces()) == TEXT
    tokenizer = Tokenizer.from_file(str(make_demo_model(tmp_path / "demo") / "tokenizer.json"))
    config = json.loads((tmp_path / "demo" / "config.json").read_text())
    assert tokenizer.get_vocab_size() == config["vocab_size"] == 320 + len(pieces())
    assert tokenizer.decode(tokenizer.encode(TEXT).ids) == TEXT


@pytest.mark.parametrize("text", ["so one one", "yes the"])
def test_a_text_whose_end_is_no_token_of_its_own_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a token already"):
        pieces(text)


def test_the_committed_lock_is_of_this_model(tmp_path: Path) -> None:
    lock = read_lock(PROJECT / "modelcar/models/tiny-qwen2/model.lock")
    folder = make_demo_model(tmp_path / "demo")
    assert {file.path: file.sha256 for file in lock.files} == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()
    }


def test_it_takes_the_place_of_the_former_tiny_model(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "tiny")
    weights = read_weights(make_demo_model(tmp_path / "tiny"))
    assert weights.config
    assert weights.config.architectures == ("Qwen2ForCausalLM",)
