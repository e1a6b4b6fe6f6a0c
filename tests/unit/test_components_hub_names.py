"""Names of a hub's models among a server's arguments, and in a model's own files: the pod has no hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from components.config.checks.vllm import doubts, unfit
from components.config.known_model import KnownModel
from modelcar import locking
from modelcar.lock_reader import read_lock
from tests.unit.test_components_settings import load, problems
from tests.unit.test_modelcar_weights import write_model

HUB = "Qwen/Qwen3-0.6B"


def model(*paths: str, **config: Any) -> KnownModel:
    kept = {"config.json": {"model_type": "qwen2", **config}}
    return KnownModel(dict.fromkeys(("config.json", "tokenizer.json", *paths), ""), kept)


def misfits(known: KnownModel, *arguments: str, **changes: Any) -> list[str]:
    return [str(problem) for problem in unfit(load(serverArgs=list(arguments), **changes), known)]


NAMES = [
    ["--tokenizer", HUB],
    [f"--tokenizer={HUB}"],
    ["--hf_config_path", HUB],
    ["--generation-config", HUB],
    ["--spec-model", HUB],
    ["--speculative-config", json.dumps({"model": HUB, "num_speculative_tokens": 5})],
    ["-sc", json.dumps({"method": "eagle3", "model": HUB})],
    ["--speculative-config.model", HUB, "--speculative-config.num_speculative_tokens", "5"],
    ["--enable-lora", "--lora-modules", f"a={HUB}"],
    ["--enable-lora", "--lora-modules", "x=/mnt/models/x", json.dumps({"name": "a", "path": HUB})],
    ["--default-mm-loras", json.dumps({"image": HUB})],
    ["--tokenizer", "gpt2"],
]


@pytest.mark.parametrize("arguments", NAMES, ids=str)
def test_a_name_of_a_hub_is_refused(arguments: list[str]) -> None:
    [found] = [str(problem) for problem in problems(serverArgs=arguments)]
    assert found.startswith("modelcar:serverArgs: --") or found.startswith("modelcar:serverArgs: -sc")
    assert (HUB in found) or ("gpt2" in found)
    assert "the pod has no hub" in found
    assert "/mnt/models/" in found


@pytest.mark.parametrize("arguments", NAMES, ids=str)
def test_a_cache_that_the_stack_names_may_have_it(arguments: list[str]) -> None:
    settings = load(serverArgs=arguments, serverEnv=["HF_HOME=/opt/cache"])
    assert any("HF_HOME" in doubt for doubt in doubts(settings, model("x/adapter_config.json")))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--tokenizer", "/opt/tokenizers/qwen"],
        ["--generation-config", "auto"],
        ["--generation-config=vllm"],
        ["--speculative-config", json.dumps({"method": "ngram", "num_speculative_tokens": 5})],
        ["--speculative-config", json.dumps({"model": "[ngram]", "prompt_lookup_max": 4})],
        ["--speculative-config", json.dumps({"method": "mtp", "num_speculative_tokens": 1})],
        ["--speculative-config", json.dumps({"model": "my_package.Proposer"})],
        ["--chat-template", "/opt/template.jinja", "--revision", "main"],
        ["--tokenizer-mode", "mistral", "--load-format", "auto"],
    ],
    ids=str,
)
def test_what_is_no_name_of_a_hub_passes(arguments: list[str]) -> None:
    assert misfits(model(), *arguments) == []


def test_adapters_of_a_hub_are_refused() -> None:
    [found] = problems(serverEnv=["VLLM_LORA_RESOLVER_HF_REPO_LIST=acme/adapters"])
    assert "VLLM_LORA_RESOLVER_HF_REPO_LIST, and the pod has no hub" in str(found)


def test_another_server_has_its_own_arguments() -> None:
    load(runtime="custom", serverArgs=["--tokenizer", HUB])


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        (["--speculative-config", json.dumps({"model": "/mnt/models/draft"})], "draft/config.json"),
        (["--spec-model=/mnt/models/draft"], "draft/params.json"),
        (["--hf-config-path", "/mnt/models/draft/"], "draft/config.json"),
        (["--generation-config", "/mnt/models/draft"], "draft/generation_config.json"),
        (["--tokenizer", "/mnt/models/draft"], "draft/tokenizer.json"),
    ],
    ids=str,
)
def test_a_folder_of_the_model_has_to_be_in_the_lock(arguments: list[str], file: str) -> None:
    assert misfits(model(file, "draft/model.safetensors"), *arguments) == []
    [found] = misfits(model(), *arguments)
    assert "the model's lock has no draft" in found
    assert "lock the model again" in found


def test_a_draft_needs_weights() -> None:
    """EAGLE heads are often pickled, and a lock leaves those out unless they are trusted."""
    arguments = ["--speculative-config", json.dumps({"method": "eagle", "model": "/mnt/models/draft"})]
    [found] = misfits(model("draft/config.json"), *arguments)
    assert "the model's lock has no weights in draft" in found
    assert "--allow-pickle" in found
    assert misfits(model("draft/config.json", "draft/pytorch_model.bin"), *arguments) == []


def test_the_model_itself_is_there() -> None:
    assert misfits(model(), "--tokenizer", "/mnt/models", "--tokenizer", "/mnt/models/") == []


def test_a_draft_that_is_no_json_object_is_refused() -> None:
    [found] = problems(serverArgs=["--speculative-config", "{model"])
    assert "--speculative-config" in str(found)


# --- in the model's own files


CODE = {"AutoConfig": "nomic-ai/nomic-bert-2048--configuration_hf_nomic_bert.NomicBertConfig"}


def test_code_of_another_repository_is_refused_where_it_would_be_loaded() -> None:
    known = model(auto_map=CODE)
    assert misfits(known) == [], "vLLM loads no code unless it is told to"
    assert misfits(model(auto_map={"AutoConfig": "configuration_own.Config"}), "--trust-remote-code") == []
    [found] = misfits(known, "--trust-remote-code")
    assert "nomic-ai/nomic-bert-2048" in found
    assert "configuration_hf_nomic_bert.py" in found
    assert misfits(known, "--trust-remote-code", "--no-trust-remote-code") == []
    assert misfits(known, "--trust-remote-code", serverEnv=["HF_HUB_CACHE=/opt/cache"]) == []


def test_code_that_a_tokenizer_names_is_found_in_the_lock(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "weights")
    auto_map = {"AutoTokenizer": ["other/repo--tokenization_x.Tokenizer", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": auto_map}))
    (folder / "generation_config.json").write_text("{}")
    description = locking.Description(folder="weights")
    locking.lock_model("m", description, locking.resolve(description, tmp_path), tmp_path)
    kept = tmp_path / "modelcar/models/m"
    assert [path.name for path in (kept / "configs").iterdir()] == ["tokenizer_config.json"]
    known = KnownModel.of(read_lock(kept / "model.lock"), kept)
    [found] = misfits(known, "--trust-remote-code")
    assert "tokenizer_config.json" in found
    assert "other/repo" in found


@pytest.mark.parametrize(
    "config",
    [
        {"speculators_config": {"verifier": {"name_or_path": "meta-llama/Llama-3.1-8B-Instruct"}}},
        {"model_type": "ultravox", "text_model_id": "meta-llama/Llama-3.2-1B-Instruct"},
        {"model_type": "ultravox", "audio_model_id": "openai/whisper-large-v3-turbo"},
    ],
    ids=str,
)
def test_models_that_a_configuration_names_are_refused(config: dict[str, Any]) -> None:
    [found] = misfits(model(**config))
    assert "the pod has no hub" in found


def test_overrides_can_put_such_a_model_into_this_one() -> None:
    paths = ("text/config.json", "text/model.safetensors")
    known = model(*paths, model_type="ultravox", text_model_id="meta-llama/Llama-3.2-1B")
    override = json.dumps({"text_model_id": "/mnt/models/text"})
    assert misfits(known, "--hf-overrides", override) == []
    [found] = misfits(model(model_type="ultravox", text_model_id="/mnt/models/text"))
    assert "the model's lock has no text" in found
