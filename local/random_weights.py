"""Made-up models of any size: what no compressor makes smaller, in files that are valid safetensors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

BLOCK = 16 * 2**20


def write_model(folder: Path, size: int, files: int, seed: int = 0) -> Path:
    """Write a model of about `size` bytes in `files` shards, unless it is there.

    The shards are as random as weights are: sixteen-bit numbers of a normal distribution would compress by a
    fifth; these do not, as quantised ones do not.
    """
    if (folder / "config.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    mapping = {}
    for number in range(1, files + 1):
        name = f"model-{number:05}-of-{files:05}.safetensors" if files > 1 else "model.safetensors"
        write_shard(folder / name, f"t{number}", size // files, seed * 1000 + number)
        mapping[f"t{number}"] = name
    if files > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapping}))
    (folder / "tokenizer.json").write_text("{}" * 1000)
    (folder / "config.json").write_text(json.dumps({"model_type": "made-up", "seed": seed}))
    return folder


def write_shard(path: Path, tensor: str, size: int, seed: int) -> None:
    """Write one safetensors file with one tensor of `size` bytes."""
    header = json.dumps({tensor: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    header += b" " * (-len(header) % 8)
    chance = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for start in range(0, size, BLOCK):
            file.write(chance.bytes(min(BLOCK, size - start)))
