"""The component provider: what a program in another language says, and what is declared of it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.unit.mocked_engine import DIGEST, Engine

#: A model whose image is there, served by vLLM.
MODEL: dict[str, Any] = {
    "storage_uri": f"oci://registry.example.com/models/chat@{DIGEST}",
    "namespace": "models",
    "vllm_server": {"image": f"docker.io/vllm/vllm-openai:v0.23.0@{DIGEST}"},
}
SCALING = {"server_address": "http://prometheus:9090", "triggers": [{"type": "requests", "threshold": 4.0}]}


@pytest.fixture(scope="module")
def provider(package: Path) -> Iterator[ModuleType]:
    """The provider's module, as the wheel has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(package))
        yield importlib.import_module("modelcar_kserve.provider")


@pytest.mark.parametrize("idle", [False, True])
def test_no_autoscaler_wakes_an_idle_model(provider: ModuleType, idle: bool) -> None:
    engine = Engine(preview=True)
    replicas = {"min": 1, "max": 4, "idle": idle}
    args = {**MODEL, "replicas": replicas, "autoscaling": SCALING}
    engine.run(lambda: {"endpoint": provider.ServedModel("chat", args).endpoint})
    assert engine.the("InferenceService")
    scaled = [one for one in engine.declared if one.type.endswith(":ScaledObject")]
    assert len(scaled) == (0 if idle else 1)
