"""A tiny Qwen2 model for machines that no model hub can be reached from.

It has the layout of a Hugging Face download of Qwen/Qwen2.5-0.5B (names of files, keys and tensors), with
random weights of a fixed seed. Its words mean nothing; that it loads, answers and travels like a real
model is the point.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelcar.errors import refuse
from modelcar.qwen2 import Dimensions, shapes, small_files, unreadable
from modelcar.whole_folder import appear, refuse_foreign

#: Stands in the metadata of the weights: a folder with it is this module's own, and may be replaced.
GENERATOR = "modelcar tiny model"

TINY = Dimensions(
    hidden=128,
    intermediate=512,
    layers=4,
    heads=4,
    key_value_heads=2,
    vocabulary=320,
    tied=True,
    window=2048,
    # Larger than Qwen2's 0.02: with so few layers an answer would only repeat the prompt's last token.
    deviation=0.1,
    dtype="float32",
)


def make_tiny_model(destination: Path, *, seed: int = 0) -> Path:
    """Make the model's folder, byte for byte the same on every machine, and return it.

    About 4 MB, float32. The folder appears complete or not at all. One that already holds this very
    model is left as it is.

    Args:
        destination: the folder to make; its parents are made too.
        seed: of the random weights; another seed gives another model of the same shape.

    Raises:
        InputError: `destination` holds something that this function did not make, or `seed` is negative.
    """
    if seed < 0:
        raise refuse("seed", seed, allowed="0 or a positive whole number", fix="choose another seed")
    tensors = random_weights(TINY, seed)
    tensors["model.embed_tokens.weight"][unreadable()] = 0  # an answer is readable text then
    weights = safetensors(tensors, {"format": "pt", "generator": f"{GENERATOR}, seed {seed}"})
    return make_folder(destination, {**small_files(TINY), "model.safetensors": weights})


def make_folder(destination: Path, files: Mapping[str, bytes]) -> Path:
    """Make a folder of these files that appears complete or not at all, and return it.

    Raises:
        InputError: `destination` holds something that this module did not make.
    """

    def holds(folder: Path) -> bool:
        try:
            return all((folder / name).read_bytes() == content for name, content in files.items())
        except OSError:
            return False

    def write(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).write_bytes(content)

    if not holds(destination):
        refuse_foreign(destination, GENERATOR)
        appear(destination, write, holds)
    return destination


def random_weights(of: Dimensions, seed: int) -> dict[str, NDArray[np.float32]]:
    """Return all tensors of a model, the same on every machine."""
    raw = np.random.PCG64(seed)
    tensors = {}
    for name, shape in shapes(of).items():
        norm = name.endswith("norm.weight")
        tensors[name] = np.ones(shape, np.float32) if norm else _normal(raw, shape)
    return tensors


def safetensors(tensors: dict[str, NDArray[np.float32]], metadata: dict[str, str]) -> bytes:
    """Return a safetensors file. Written out here: the library puts metadata in another order each time."""
    header: dict[str, Any] = {"__metadata__": metadata}
    data = []
    end = 0
    for name, tensor in sorted(tensors.items()):
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
        data.append(tensor.astype("<f4").tobytes())
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the data begins where numbers may begin
    return b"".join([len(text).to_bytes(8, "little"), text, *data])


def _normal(raw: np.random.PCG64, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return numbers that are normal for all purposes here, with a deviation of the tiny model's own.

    The sum of twelve uniform numbers, added up as integers: numpy's own normal distribution calls the
    machine's math library and may differ in the last bit, while PCG64's raw output is fixed for good.
    """
    count = int(np.prod(shape))
    words = np.asarray(raw.random_raw(3 * count), dtype=np.uint64).reshape(3, count)
    total = np.zeros(count, np.int64)
    for shift in (0, 16, 32, 48):
        total += ((words >> np.uint64(shift)) & np.uint64(0xFFFF)).sum(axis=0).astype(np.int64)
    centred = total - 6 * 0xFFFF
    # Twelve uniform numbers in 0..65535 have a deviation of 65536 in sum (the square root of 12/12).
    return (centred * (TINY.deviation / 65536)).astype(np.float32).reshape(shape)
