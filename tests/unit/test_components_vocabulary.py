"""gpt-oss: the vocabulary that its server downloads, and the pod cannot."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

from components.config.checks.vllm import doubts, unfit
from components.config.checks.vocabulary import SHA256
from components.config.known_model import KnownModel
from tests.unit.test_components_settings import load

NAME = "o200k_base.tiktoken"


def model(model_type: str = "gpt_oss", files: Mapping[str, str] = MappingProxyType({})) -> KnownModel:
    return KnownModel({"config.json": "", **files}, {"config.json": {"model_type": model_type}})


def told(known: KnownModel, **changes: Any) -> tuple[list[str], list[str]]:
    settings = load(**changes)
    return [str(problem) for problem in unfit(settings, known)], list(doubts(settings, known))


def with_base(value: str) -> dict[str, Any]:
    return {"serverEnv": [f"TIKTOKEN_ENCODINGS_BASE={value}"]}


def test_a_preview_says_what_gpt_oss_downloads() -> None:
    refused, [doubt] = told(model())
    assert not refused, "the server's image may bring it"
    assert f"downloads {NAME}" in doubt
    assert f"--extra encodings/{NAME}=https://openaipublic.blob.core.windows.net/encodings/{NAME}" in doubt
    assert f"#sha256={SHA256}" in doubt
    assert "TIKTOKEN_ENCODINGS_BASE=/mnt/models/encodings" in doubt


@pytest.mark.parametrize("changes", [{"runtime": "custom"}, with_base("/opt/encodings"), {}], ids=str)
def test_nothing_is_said_where_nothing_is_downloaded(changes: dict[str, Any]) -> None:
    known = model() if changes else model("qwen2")
    assert told(known, **changes) == ([], [])


def test_the_locked_vocabulary_is_enough() -> None:
    known = model(files={f"encodings/{NAME}": SHA256})
    for base in ("/mnt/models/encodings", "/mnt/models/encodings/"):
        assert told(known, **with_base(base)) == ([], [])
    _, [doubt] = told(known)
    assert "TIKTOKEN_ENCODINGS_BASE=/mnt/models/encodings" in doubt
    assert "--extra" not in doubt, "it is there"


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, f"the model's lock has no encodings/{NAME}"),
        ({f"encodings/{NAME}": "0" * 64}, "sha256 0000"),
    ],
)
def test_a_folder_without_the_very_vocabulary_is_refused(files: dict[str, str], says: str) -> None:
    [found], _ = told(
        KnownModel({"config.json": "", **files}, model().kept), **with_base("/mnt/models/encodings")
    )
    assert found.startswith("modelcar:serverEnv: TIKTOKEN_ENCODINGS_BASE")
    assert says in found


def test_an_empty_variable_is_a_folder_that_is_not_there() -> None:
    """Measured with openai-harmony 0.0.8: set and empty, it does not download either."""
    [found], _ = told(model(), **with_base(""))
    assert "TIKTOKEN_ENCODINGS_BASE" in found
