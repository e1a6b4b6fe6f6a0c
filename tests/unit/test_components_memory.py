"""A model that is served without a GPU, and the memory of its pod."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.config.checks.fit import doubts
from components.config.known_model import KnownModel
from components.image.model_lock import model_doubts
from modelcar.lock_reader import read_lock
from tests.unit.test_components_settings import load

PROJECT = Path(__file__).parents[2]
GIB = 1024**3
FLOAT32 = ["--dtype=float32"]
HALF = {"torch_dtype": "bfloat16"}


def told(size: float, config: dict[str, Any], **changes: Any) -> list[str]:
    settings = load(**{"gpuCount": 0, "sharedMemory": "1Gi", "memory": "3Gi", **changes})
    model = KnownModel({"config.json": ""}, {"config.json": config}, size=int(size * GIB))
    return list(doubts(settings, model))


@pytest.mark.parametrize(
    ("size", "config", "changes", "takes", "enough"),
    [
        (3.5, {}, {}, "3.5 GiB", "7Gi"),
        (1.8, HALF, {"serverArgs": FLOAT32}, "3.6 GiB", "7Gi"),  # as the local stack serves on the CPU
        (1.8, {"dtype": "float16"}, {"vllm": {"dtype": "float32"}}, "3.6 GiB", "7Gi"),
    ],
)
def test_weights_above_the_pods_memory_are_told_before_the_pod_is_killed(
    size: float, config: dict[str, Any], changes: dict[str, Any], takes: str, enough: str
) -> None:
    [doubt] = told(size, config, **changes)
    for part in ("memory is 3Gi", takes, "OOMKilled", f"Set memory to {enough}"):
        assert part in doubt
    assert told(size, config, **changes, **{"memory": enough}) == [], "the fix is one"


@pytest.mark.parametrize(
    ("size", "config", "changes"),
    [
        (2.5, {}, {}),
        (1.8, HALF, {}),
        (1.8, {"torch_dtype": "float32"}, {"serverArgs": FLOAT32}),
        (1.8, {**HALF, "quantization_config": {"quant_method": "awq"}}, {"serverArgs": FLOAT32}),
        (14.2, HALF, {"gpuCount": 1}),  # they only pass through it
        (14.2, {}, {"runtime": "custom", "serverCommand": ["serve"]}),  # may map its files
    ],
)
def test_nothing_is_said_where_they_fit_or_lie_elsewhere(
    size: float, config: dict[str, Any], changes: dict[str, Any]
) -> None:
    assert told(size, config, **changes) == []


def test_a_preview_names_the_model() -> None:
    lock = read_lock(PROJECT / "modelcar/models/tiny-qwen2/model.lock")
    settings = load(PROJECT, model="tiny-qwen2", gpuCount=0, memory="1Mi", sharedMemory="1Mi")
    [doubt] = model_doubts(settings, lock, PROJECT)
    assert doubt.startswith("qwen-oci: memory is 1Mi")
    assert model_doubts(load(PROJECT, model="tiny-qwen2", gpuCount=0), lock, PROJECT) == ()
