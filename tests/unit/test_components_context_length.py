"""How many tokens a model takes: vLLM's own arithmetic and words, and what makes more of them right."""

from __future__ import annotations

import json
from typing import Any

import pytest

from components.config.checks.vllm import doubts, unfit
from components.config.known_model import KnownModel
from components.manifests.server_arguments import server_arguments
from tests.unit.test_components_settings import load, problems

SHORT = {"model_type": "qwen2", "max_position_embeddings": 256}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
LLAMA = {"rope_type": "llama3", "factor": 4.0, "original_max_position_embeddings": 64}
OLD = {"type": "yarn", "factor": 4.0}


def model(config: dict[str, Any]) -> KnownModel:
    return KnownModel({"config.json": ""}, {"config.json": config})


def misfits(config: dict[str, Any], length: object, **changes: Any) -> list[str]:
    settings = load(**{"vllm": {"maxModelLen": length}, **changes})
    return [str(problem) for problem in unfit(settings, model(config))]


def overridden(changes: dict[str, Any]) -> list[str]:
    return ["--hf-overrides", json.dumps(changes)]


@pytest.mark.parametrize(
    ("given", "argument"),
    [
        (4096, "4096"),
        ("4096", "4096"),
        ("32k", "32000"),
        ("32K", "32768"),
        ("25.6k", "25600"),
        ("1m", "1000000"),
        ("1M", "1048576"),
        (10_485_760, "10485760"),
        ("auto", "auto"),
        ("AUTO", "auto"),
        (-1, "auto"),
        ("-1", "auto"),
    ],
)
def test_lengths_are_vllms_words(given: object, argument: str) -> None:
    """vLLM 0.23, utils/argparse_utils.py: human_readable_int_or_auto."""
    assert f"--max-model-len={argument}" in server_arguments(load(vllm={"maxModelLen": given}))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("1.5K", "did you mean 1.5k?"),
        ("32kb", "32k"),
        ("", "auto"),
        (0, "16 to"),
        (8, "16 to"),
        (-2, "16 to"),
        (True, "auto"),
        (4096.5, "auto"),
        ([4096], "auto"),
        (2**31, "16 to"),
        ("9" * 5000, "16 to"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_length_is_refused(given: object, says: str) -> None:
    [found] = problems(vllm={"maxModelLen": given})
    assert found.key == "modelcar:vllm.maxModelLen"
    assert says in str(found)


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        # What ModelConfig of vLLM 0.23 takes at most, run with transformers 5.
        (SHORT, 256),
        ({**SHORT, "rope_scaling": {**YARN, **OLD}}, 1024),
        ({**SHORT, "rope_scaling": OLD}, 1024),
        ({**SHORT, "rope_scaling": {"type": "linear", "factor": 4.0}}, 1024),
        ({**SHORT, "rope_scaling": {"type": "default", "factor": 4.0}}, 1024),
        ({**SHORT, "rope_scaling": LLAMA}, 256),
        ({**SHORT, "rope_parameters": {"full": YARN, "sliding": {"rope_type": "default"}}}, 1024),
        ({**SHORT, "rope_scaling": {"type": "linear", "factor": None}}, 256),
        ({**SHORT, "rope_scaling": {"type": "linear", "factor": float("inf")}}, 256),
        ({**SHORT, "model_max_length": 1024}, 1024),
        ({**SHORT, "seq_length": 128}, 128),
        ({"n_positions": 512}, 512),
        ({**SHORT, "model_type": "gemma3_text", "rope_scaling": {"type": "linear", "factor": 8}}, 256),
        ({"text_config": SHORT}, 256),
    ],
    ids=str,
)
def test_the_longest_is_what_vllm_derives(config: dict[str, Any], longest: int) -> None:
    assert misfits(config, longest) == []
    [found] = misfits(config, longest + 1)
    assert f"at most {longest}" in found


def test_a_length_that_nobody_knows_is_not_held_to_anything() -> None:
    assert misfits({"model_type": "mamba"}, 1_000_000) == []
    assert misfits({}, 1_000_000) == []


def test_the_refusal_says_how_more_becomes_right() -> None:
    [found] = misfits({**SHORT, "rope_theta": 10000.0}, 1024)
    assert "1024, more than the model was made for: vLLM would not start" in found
    advised = '{"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0}}'
    assert f"--hf-overrides '{advised}'" in found
    assert misfits(SHORT, 1024, serverArgs=["--hf-overrides", advised]) == []
    assert "VLLM_ALLOW_LONG_MAX_MODEL_LEN=1" in found


@pytest.mark.parametrize(
    "arguments",
    [
        overridden({"rope_scaling": YARN}),
        overridden({"rope_parameters": YARN}),
        overridden({"rope_scaling": OLD}),
        ["--hf_overrides=" + json.dumps({"rope_scaling": YARN})],
        ["--hf-overrides.rope_parameters.rope_type=yarn", "--hf-overrides.rope_parameters.factor", "4"],
        overridden({"max_position_embeddings": 1024}),
        ["--hf-overrides.max_position_embeddings=1k", "--hf-overrides.model_max_length", "1024"],
    ],
    ids=str,
)
def test_overrides_of_the_configuration_make_it_longer(arguments: list[str]) -> None:
    assert misfits(SHORT, 1024, serverArgs=arguments) == []
    assert misfits(SHORT, 1025, serverArgs=arguments)


def test_overrides_of_a_part_reach_that_part() -> None:
    nested = {"model_type": "qwen3_vl", "text_config": SHORT}
    assert misfits(nested, 1024, serverArgs=overridden({"text_config": {"rope_parameters": YARN}})) == []
    assert misfits(nested, 1024, serverArgs=overridden({"rope_parameters": YARN})), "vLLM does not look there"


def test_both_names_of_the_scaling_replace_what_the_configuration_says() -> None:
    plain = {**SHORT, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
    for name in ("rope_scaling", "rope_parameters"):
        assert misfits(plain, 1024, serverArgs=overridden({name: YARN})) == []
        part = overridden({"text_config": {name: YARN}})
        assert misfits({"text_config": plain}, 1024, serverArgs=part) == []


def test_overrides_that_are_no_object_are_refused() -> None:
    for text in ("{rope", "[1]"):
        [found] = problems(serverArgs=["--hf-overrides", text])
        assert "--hf-overrides" in str(found)
        assert "a JSON object" in str(found)


@pytest.mark.parametrize(("value", "allowed"), [("1", True), ("True", True), ("yes", False), ("0", False)])
def test_the_variable_allows_more_with_a_warning(value: str, allowed: bool) -> None:
    settings = load(vllm={"maxModelLen": 1024}, serverEnv=[f"VLLM_ALLOW_LONG_MAX_MODEL_LEN={value}"])
    assert bool(list(unfit(settings, model(SHORT)))) is not allowed
    found = doubts(settings, model(SHORT))
    assert any("1024" in doubt and "256" in doubt for doubt in found) is allowed


def test_a_length_in_the_servers_own_arguments_is_held_to_the_same() -> None:
    for arguments in (["--max-model-len", "1024"], ["--max_model_len=1k"]):
        settings = load(serverArgs=arguments)
        [found] = [str(problem) for problem in unfit(settings, model(SHORT))]
        assert found.startswith("modelcar:serverArgs: --max-model-len")
    assert not list(unfit(load(serverArgs=["--max-model-len=auto"]), model(SHORT)))
    [found] = [str(problem) for problem in problems(serverArgs=["--max-model-len=much"])]
    assert "much" in found


def test_auto_fits_every_model() -> None:
    assert misfits(SHORT, "auto") == []
