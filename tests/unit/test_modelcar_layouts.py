"""Which files make a model: known layouts, unknown ones, and what a hub's list of files tells at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from modelcar import hub, locking
from modelcar.__main__ import main
from modelcar.errors import InputError
from modelcar.lock_reader import read_lock
from modelcar.model_config import read_config
from modelcar.weights import read_weights
from tests.hub_server import Hub, serve
from tests.unit.test_modelcar_weights import write_model

PARAMS = {"dim": 8, "n_layers": 1, "n_heads": 4, "max_position_embeddings": 4096, "vocab_size": 16}
REPOSITORY = "mistralai/Tiny"


def mistral(folder: Path) -> Path:
    """Write what a repository in Mistral's own format has, and nothing of Transformers'."""
    folder.mkdir()
    (folder / "params.json").write_text(json.dumps(PARAMS))
    (folder / "tekken.json").write_text("{}")
    save_file({"output.weight": np.zeros((2, 3), np.float32)}, folder / "consolidated.safetensors")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Hub]:
    with serve({REPOSITORY: contents(mistral(tmp_path / "remote"))}) as server:
        yield server


@pytest.mark.parametrize(
    "names",
    [
        *(["tiktoken.model"], ["tokenizer.jsonl"], ["tokenizer.tok.json"], ["tokenizer.model.v3"]),
        *(["tekken.json"], ["sentencepiece.bpe.model"], ["vocab.json", "merges.txt"], ["source.spm"]),
        *(["qwen.tiktoken"], ["tokenizer_2.json"]),
    ],
    ids=str,
)
def test_tokenizers_of_many_kinds_are_known(model: Path, names: list[str]) -> None:
    (model / "tokenizer.json").rename(model / names[0])
    for name in names[1:]:
        (model / name).write_text("{}")
    assert read_weights(model).doubts == ()


@pytest.mark.parametrize("name", ["words.bpe", "tokenization_new.py", "tokenizer_config.json", "vocab.json"])
def test_an_unknown_tokenizer_is_a_warning_and_a_setting_takes_it(model: Path, name: str) -> None:
    (model / "tokenizer.json").rename(model / name)
    [doubt] = read_weights(model).doubts
    assert name in doubt
    assert "--layout any" in doubt
    assert read_weights(model, layout="any").doubts == ()


def test_no_sign_of_a_tokenizer_is_refused_unless_a_setting_takes_it(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="there is no tokenizer") as caught:
        read_weights(model)
    assert "--layout any" in caught.value.problems[0].fix
    assert [file.path for file in read_weights(model, layout="any").files] == [
        "config.json",
        "model.safetensors",
    ]


def test_a_folder_for_another_server_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(InputError) as caught:
        read_weights(tmp_path)
    assert {Path(problem.key).name for problem in caught.value.problems} == {
        *("config.json", "*.safetensors", "tokenizer.json"),
    }
    weights = read_weights(tmp_path, layout="any")
    assert ([file.path for file in weights.files], weights.config) == (["model.gguf"], None)


def test_broken_weights_are_refused_in_any_layout(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(InputError, match="broken"):
        read_weights(model, layout="any")


def test_mistrals_own_format_is_a_model(tmp_path: Path) -> None:
    weights = read_weights(mistral(tmp_path / "model"))
    assert [file.path for file in weights.files] == ["consolidated.safetensors", "params.json", "tekken.json"]
    assert weights.config
    assert (weights.config.model_type, weights.doubts) == ("mistral", ())


@pytest.mark.parametrize(("name", "told"), [("tokenizer.model.v3", False), ("tokenizer.model", True)])
def test_mistrals_own_format_takes_mistrals_tokenizers(tmp_path: Path, name: str, told: bool) -> None:
    folder = mistral(tmp_path / "model")
    (folder / "tekken.json").rename(folder / name)
    assert any("no tokenizer of Mistral's own" in doubt for doubt in read_weights(folder).doubts) is told


def test_parameters_beside_weights_of_transformers_are_no_configuration(model: Path) -> None:
    """vLLM reads params.json only where the weights are consolidated*."""
    (model / "config.json").unlink()
    (model / "params.json").write_text(json.dumps(PARAMS))
    with pytest.raises(InputError, match=r"config\.json: there is no such file"):
        read_weights(model)


def test_mistrals_own_format_is_locked_from_a_hub(tmp_path: Path, remote: Hub) -> None:
    description = locking.Description(hub=REPOSITORY)
    resolved = locking.resolve(description, tmp_path, endpoint=remote.url)
    lock, _ = locking.lock_model("tiny", description, resolved, tmp_path)
    assert [file.path for file in lock.files] == ["consolidated.safetensors", "params.json", "tekken.json"]
    config = read_config(lock, tmp_path / "modelcar/models/tiny")
    assert (config["max_position_embeddings"], config["num_attention_heads"]) == (4096, 4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tekken.json": None}, "tokenizer.json: there is no tokenizer"),
        ({"params.json": None}, "config.json: there is no such file"),
        ({"consolidated.safetensors": None}, "*.safetensors: there is no such file"),
        (
            {"consolidated.safetensors": None, "consolidated-00001-of-00002.safetensors": b"x"},
            "consolidated-00002-of-00002.safetensors: missing, one of 2 shards",
        ),
    ],
)
def test_what_the_list_of_files_tells_is_said_before_a_byte_of_weights(
    tmp_path: Path, change: dict[str, bytes | None], says: str
) -> None:
    files = {**contents(mistral(tmp_path / "m")), **change}
    with serve({REPOSITORY: {path: data for path, data in files.items() if data is not None}}) as server:
        with pytest.raises(InputError) as caught:
            hub.resolve(REPOSITORY, endpoint=server.url)
        downloads = [request for request in server.requests if "/resolve/" in request.path]
    assert f"{REPOSITORY}/{says}" in str(caught.value)
    assert not downloads


def test_mistrals_own_index_is_looked_at_before_the_weights(tmp_path: Path) -> None:
    index = {"weight_map": {"output.weight": "consolidated-00001-of-00001.safetensors"}}
    files = {
        **contents(mistral(tmp_path / "m")),
        "consolidated.safetensors.index.json": json.dumps(index).encode(),
    }
    with serve({REPOSITORY: files}) as server, pytest.raises(InputError, match="names 1 files that are not"):
        hub.resolve(REPOSITORY, endpoint=server.url)


def test_an_unknown_tokenizer_of_a_hub_is_a_warning(tmp_path: Path) -> None:
    files: dict[str, Any] = contents(write_model(tmp_path / "m"))
    files["words.bpe"] = files.pop("tokenizer.json")
    with serve({REPOSITORY: files}) as server:
        [doubt] = hub.resolve(REPOSITORY, endpoint=server.url).doubts
        assert "words.bpe" in doubt
        assert hub.resolve(REPOSITORY, endpoint=server.url, layout="any").doubts == ()


def test_the_layout_is_kept_and_the_lock_can_be_fetched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "model.gguf").write_bytes(b"GGUF")
    call = ["--project", str(tmp_path)]
    assert main([*call, "lock", "llama", "--folder", str(folder)]) == 2
    assert main([*call, "lock", "llama", "--folder", str(folder), "--layout", "any"]) == 0
    assert "layout: any" in (tmp_path / "modelcar/models/llama/model.yaml").read_text()
    assert main([*call, "lock", "llama"]) == 0, "it is not said again"
    shutil.rmtree(tmp_path / "modelcar/data")
    assert main([*call, "fetch", "llama"]) == 0
    lock = read_lock(tmp_path / "modelcar/models/llama/model.lock")
    assert read_config(lock, tmp_path / "modelcar/models/llama") == {}
    capsys.readouterr()


def test_the_command_line_tells_doubts(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model / "tokenizer.json").rename(model / "words.bpe")
    assert main(["check", str(model)]) == 0
    assert "warning: " in capsys.readouterr().err
    assert main(["check", str(model), "--layout", "any"]) == 0
    assert "warning: " not in capsys.readouterr().err
