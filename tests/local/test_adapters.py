"""An adapter as an image of its own, loaded by the real vLLM: locked, pushed, served, and gone again."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from local.ask import ask, core_api, served_pod
from local.servers.choice import vllm_obstacles
from modelcar.demo_model import TEXT
from tests.conftest import Platform

pytestmark = pytest.mark.extended

SERVICE = ("kserve-demo", "qwen-oci")
#: What clients ask the server for.
BASE = "tiny-qwen2"
RANK = 8


def write_adapter(folder: Path, model: dict[str, Any]) -> None:
    """Write a LoRA adapter as PEFT saves it, of random weights that change any answer."""
    folder.mkdir()
    chance = np.random.default_rng(1)
    hidden, between = model["hidden_size"], model["intermediate_size"]
    tensors = {}
    for layer in range(model["num_hidden_layers"]):
        # Not the attention's: the demo model's next word hardly depends on it.
        at = f"base_model.model.model.layers.{layer}.mlp.down_proj.lora_"
        tensors[f"{at}A.weight"] = chance.normal(size=(RANK, between)).astype("float32")
        tensors[f"{at}B.weight"] = chance.normal(size=(hidden, RANK)).astype("float32")
    save_file(tensors, folder / "adapter_model.safetensors")
    told = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": BASE,
        "r": RANK,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": ["down_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(told))


def configure(platform: Platform, **changes: Any) -> None:
    path = platform.checkout.folder / "Pulumi.local.yaml"
    document = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        document["config"][f"modelcar:{key}"] = value
        if value is None:
            del document["config"][f"modelcar:{key}"]
    path.write_text(yaml.safe_dump(document))


@pytest.fixture
def mounted(platform: Platform) -> Iterator[Platform]:
    """Let the local stack mount its images, as adapters of their own need it."""
    if lacks := vllm_obstacles():
        pytest.skip("vLLM's CPU build does not run here: " + "; ".join(lacks))
    path = platform.checkout.folder / "Pulumi.local.yaml"
    before = path.read_bytes()
    configure(platform, placement="imageVolume")
    yield platform
    path.write_bytes(before)


def answers(platform: Platform) -> dict[str, str]:
    """Return what each model of the server says, by its name."""
    found = served_pod(core_api(str(platform.settings["kubeconfig"]), None), *SERVICE)
    base = f"http://{found.address}:{found.port}"
    models = httpx.get(f"{base}/v1/models", timeout=30, trust_env=False).json()["data"]
    names = [one["id"] for one in models]
    return {name: ask(base, name).text for name in names}


def modelcar(platform: Platform, *arguments: str) -> str:
    result = subprocess.run(
        [".venv/bin/python", "-m", "modelcar", *arguments],
        cwd=platform.checkout.folder,
        env={**platform.checkout.environment, **platform.shell},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not result.returncode, result.stderr
    return result.stdout


def test_an_adapter_comes_and_goes_beside_the_same_image(mounted: Platform, tmp_path: Path) -> None:
    platform, folder = mounted, mounted.checkout.folder
    platform.checkout.make("up")
    assert answers(platform) == {BASE: TEXT}
    image = json.loads((folder / ".local/local/summary.json").read_text())["outputs"]["storageUri"]

    config = json.loads((folder / "modelcar/models/tiny-qwen2/config.json").read_text())
    write_adapter(tmp_path / "adapter", config)
    modelcar(platform, "lock", "shuffled", "--folder", str(tmp_path / "adapter"), "--layout", "any")
    repository = f"{platform.settings['registry']}/shuffled"
    reference = modelcar(platform, "push", "shuffled", repository, "--image", "--insecure").split()[-1]
    assert reference.startswith(f"{repository}@sha256:")

    module = {"name": "shuffled", "image": reference}
    configure(platform, vllm={"loraModules": [module]})
    platform.checkout.make("up")
    told = answers(platform)
    assert told[BASE] == TEXT, "the base model is as it was"
    assert told.keys() == {BASE, "shuffled"}
    assert told["shuffled"] != TEXT
    outputs = json.loads((folder / ".local/local/summary.json").read_text())["outputs"]
    assert outputs["storageUri"] == image

    configure(platform, vllm=None)
    platform.checkout.make("up")
    assert answers(platform) == {BASE: TEXT}
