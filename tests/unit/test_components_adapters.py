"""LoRA adapters: what vLLM would refuse of them on a node is refused in the preview."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from components.config.checks.vllm import doubts, unfit
from components.config.known_model import KnownModel
from modelcar import locking
from modelcar.errors import InputError
from modelcar.lock_reader import read_lock
from tests.unit.test_components_settings import load, problems
from tests.unit.test_modelcar_weights import write_model

GOOD = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "target_modules": ["q_proj"], "bias": "none"}
MODULES = {"loraModules": [{"name": "french", "path": "adapters/fr"}]}


def model(
    adapter: dict[str, Any] | None, weights: str | None = "adapter_model.safetensors", at: str = "adapters/fr"
) -> KnownModel:
    paths = ["config.json", f"{at}/adapter_config.json", *([f"{at}/{weights}"] if weights else [])]
    kept = {} if adapter is None else {f"{at}/adapter_config.json": adapter}
    return KnownModel(dict.fromkeys(paths, ""), kept)


def misfits(adapter: dict[str, Any] | None, **changes: Any) -> list[str]:
    settings = load(**{"vllm": MODULES, **changes})
    return [str(problem) for problem in unfit(settings, model(adapter))]


def test_an_adapter_that_vllm_takes_passes() -> None:
    assert misfits(GOOD) == []
    assert misfits({**GOOD, "r": 64}, vllm={**MODULES, "maxLoraRank": 64}) == []
    assert misfits({**GOOD, "r": 24}, vllm={**MODULES, "maxLoraRank": 32}) == []
    assert misfits({**GOOD, "use_rslora": True, "modules_to_save": None, "use_dora": False}) == []


@pytest.mark.parametrize(
    ("change", "says", "fix"),
    [
        ({"r": 17}, "rank 17, above maxLoraRank 16", "vllm.maxLoraRank 32"),
        ({"r": 300}, "rank 300, above maxLoraRank 16", "vllm.maxLoraRank 320"),
        ({"r": 1024}, "rank 1024, and vLLM takes at most 512", "merge_and_unload"),
        ({"rank_pattern": {"q_proj": 64}}, "rank 64, above maxLoraRank 16", "vllm.maxLoraRank 64"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save", "merge_and_unload"),
        ({"use_dora": True}, "use_dora", "merge_and_unload"),
        ({"bias": "all"}, "bias all", "merge_and_unload"),
        ({"lora_bias": True}, "lora_bias", "merge_and_unload"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices", "merge_and_unload"),
        ({"peft_type": "IA3"}, "peft_type IA3", "LORA"),
        ({"target_modules": None}, "target_modules", "saved"),
        ({"r": "16"}, "r is '16'", "saved"),
    ],
    ids=str,
)
def test_what_vllm_would_refuse_of_an_adapter_is_refused(change: dict[str, Any], says: str, fix: str) -> None:
    [found] = misfits({**GOOD, **change})
    assert found.startswith("modelcar:vllm.loraModules[0]")
    assert f"adapters/fr: {says}" in found
    assert fix in found


def test_all_of_it_is_told_at_once() -> None:
    assert len(misfits({**GOOD, "r": 32, "use_dora": True, "bias": "all"})) == 3


def test_the_rank_among_the_servers_own_arguments_counts() -> None:
    rank = ["--max-lora-rank", "64"]
    assert misfits({**GOOD, "r": 64}, serverArgs=rank) == []
    [found] = misfits({**GOOD, "r": 128}, serverArgs=rank)
    assert "above maxLoraRank 64" in found
    [refused] = [str(p) for p in problems(vllm=MODULES, serverArgs=["--max-lora-rank=24"])]
    assert "1, 8, 16, 32" in refused


def test_adapters_among_the_servers_own_arguments_are_held_to_the_same() -> None:
    for module in ("french=/mnt/models/adapters/fr", '{"name": "f", "path": "/mnt/models/adapters/fr/"}'):
        arguments = ["--enable-lora", "--lora-modules", module]
        settings = load(serverArgs=arguments)
        assert not list(unfit(settings, model(GOOD)))
        [found] = [str(problem) for problem in unfit(settings, model({**GOOD, "r": 32}))]
        assert found.startswith("modelcar:serverArgs: adapters/fr: rank 32")
        [found] = [str(problem) for problem in unfit(settings, model(GOOD, at="adapters/de"))]
        assert "the model's lock has no adapters/fr/adapter_config.json" in found


@pytest.mark.parametrize("weights", [None, "adapter_model.gguf"])
def test_an_adapter_without_weights_is_refused(weights: str | None) -> None:
    [found] = [str(problem) for problem in unfit(load(vllm=MODULES), model(GOOD, weights))]
    assert "adapters/fr: the model's lock has no weights of it" in found
    assert "--allow-pickle" in found


def test_pickled_weights_that_were_locked_are_taken() -> None:
    assert not list(unfit(load(vllm=MODULES), model(GOOD, "adapter_model.bin")))


def test_a_lock_of_before_says_what_cannot_be_checked() -> None:
    assert misfits(None) == []
    [doubt] = doubts(load(vllm=MODULES), model(None))
    assert "adapters/fr" in doubt
    assert "lock the model again" in doubt
    assert not list(doubts(load(vllm=MODULES), model(GOOD)))


def test_scales_that_vllm_does_not_read_are_a_warning() -> None:
    [doubt] = doubts(load(vllm=MODULES), model({**GOOD, "alpha_pattern": {"q_proj": 64}}))
    assert "alpha_pattern" in doubt


# --- in the lock


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    adapter = write_model(tmp_path / "weights") / "adapters/fr"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text(json.dumps({**GOOD, "r": 32}))
    (tmp_path / "weights/model.safetensors").rename(adapter / "adapter_model.safetensors")
    write_model(tmp_path / "weights")
    return tmp_path / "weights"


def lock(folder: Path, **options: Any) -> Path:
    description = locking.Description(folder="weights", **options)
    locking.lock_model("m", description, locking.resolve(description, folder.parent), folder.parent)
    return folder.parent / "modelcar/models/m"


def test_the_lock_keeps_what_the_check_needs(folder: Path) -> None:
    kept = lock(folder)
    known = KnownModel.of(read_lock(kept / "model.lock"), kept)
    [found] = [str(problem) for problem in unfit(load(vllm=MODULES), known)]
    assert "rank 32, above maxLoraRank 16" in found
    changed = kept / "configs/adapters/fr/adapter_config.json"
    changed.write_text(json.dumps(GOOD))
    with pytest.raises(InputError, match=r"not the adapters/fr/adapter_config\.json that m's lock names"):
        KnownModel.of(read_lock(kept / "model.lock"), kept)


def test_a_broken_configuration_is_refused_in_words(folder: Path) -> None:
    (folder / "adapters/fr/adapter_config.json").write_text("{broken")
    kept = lock(folder)
    known = KnownModel.of(read_lock(kept / "model.lock"), kept)
    found = [str(problem) for problem in unfit(load(vllm=MODULES), known)]
    assert any("r is None" in text for text in found)


def test_what_a_former_lock_kept_goes_with_it(folder: Path) -> None:
    kept = lock(folder)
    (folder / "adapters").rename(folder / "others")
    lock(folder)
    assert [path.relative_to(kept).as_posix() for path in kept.rglob("adapter_config.json")] == [
        "configs/others/fr/adapter_config.json"
    ]


def test_pickled_adapters_are_refused_by_name_and_taken_when_trusted(folder: Path) -> None:
    adapter = folder / "adapters/fr"
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(InputError, match=r"adapter_model\.bin: pickled weights"):
        lock(folder)
    kept = lock(folder, allow_pickle=True)
    assert "adapters/fr/adapter_model.bin" in {file.path for file in read_lock(kept / "model.lock").files}


def test_pickled_weights_beside_those_of_an_adapter_are_a_duplicate(folder: Path) -> None:
    (folder / "adapters/fr/adapter_model.bin").write_bytes(b"x")
    (folder / "adapters/fr/training_args.bin").write_bytes(b"x")
    found = {file.path for file in read_lock(lock(folder) / "model.lock").files}
    assert not [path for path in found if path.endswith(".bin")]
