"""Models of true dimensions with random weights, for measurements on machines that reach no hub.

They load, compile and compute as the models whose dimensions they have; their words mean nothing. The weights
are made by all processors at once, each block from a seed of its own, so that the bytes are the same whatever
the machine and the number of its processors.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelcar.errors import refuse
from modelcar.oci_layout import require_space
from modelcar.qwen2 import Dimensions, shapes, small_files, unreadable
from modelcar.tiny_model import TINY
from modelcar.whole_folder import appear, refuse_foreign

#: Stands in the metadata of the weights: a folder with it is this module's own, and may be replaced.
GENERATOR = "modelcar made-up model"
#: Bytes of one safetensors file at most; more go to shards, as `save_pretrained` of Transformers does it.
SHARD = 4_500_000_000
#: Numbers that are made in one go: what they take stays in a processor's cache.
BLOCK = 2**20
#: Bytes of a number (bfloat16).
WIDTH = 2

#: By the `config.json` of Qwen/Qwen2.5-0.5B-Instruct and Qwen/Qwen2.5-7B-Instruct; "small" is for tests, with
#: a vocabulary that is larger than the tokenizer's, as the others' is.
PRESETS: Mapping[str, Dimensions] = {
    "small": Dimensions(
        hidden=TINY.hidden,
        intermediate=TINY.intermediate,
        layers=TINY.layers,
        heads=TINY.heads,
        key_value_heads=TINY.key_value_heads,
        vocabulary=1024,
        tied=False,
        window=2048,
        deviation=0.1,
        dtype="bfloat16",
    ),
    "qwen2.5-0.5b": Dimensions(
        hidden=896,
        intermediate=4864,
        layers=24,
        heads=14,
        key_value_heads=2,
        vocabulary=151_936,
        tied=True,
        window=32_768,
        deviation=0.02,
        dtype="bfloat16",
    ),
    "qwen2.5-7b": Dimensions(
        hidden=3584,
        intermediate=18_944,
        layers=28,
        heads=28,
        key_value_heads=4,
        vocabulary=152_064,
        tied=False,
        window=32_768,
        deviation=0.02,
        dtype="bfloat16",
    ),
}


@dataclass(frozen=True)
class _Tensor:
    """One tensor's place. number: among all tensors; offset: of its data in the file."""

    name: str
    number: int
    shape: tuple[int, ...]
    offset: int

    @property
    def count(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class _Shard:
    """One safetensors file: its name, what stands before the data, its tensors and whole size."""

    name: str
    head: bytes
    tensors: tuple[_Tensor, ...]
    size: int


def size_of(like: str) -> int:
    """Return the bytes of a preset's weights.

    Raises:
        InputError: there is no such preset.
    """
    return sum(math.prod(shape) for shape in shapes(dimensions(like)).values()) * WIDTH


def dimensions(like: str) -> Dimensions:
    """Return a preset's dimensions.

    Raises:
        InputError: there is no such preset.
    """
    if like not in PRESETS:
        raise refuse("--like", like, allowed=", ".join(PRESETS), fix="choose one of these")
    return PRESETS[like]


def make_made_up_model(
    destination: Path,
    like: str,
    *,
    seed: int = 0,
    shard: int = SHARD,
    workers: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Path:
    """Make a model's folder, byte for byte the same on every machine, and return it.

    The folder appears complete or not at all. One that already holds this very model is left as it is.

    Args:
        destination: the folder to make; its parents are made too.
        like: whose dimensions it has (`PRESETS`).
        seed: of the random weights.
        shard: bytes of one file at most; a tensor that is larger has a file of its own.
        workers: threads that make the weights; one for each processor where None.
        progress: told of bytes as they are made.

    Raises:
        InputError: there is no such preset, `seed` is negative, the disk has too little room, or
            `destination` holds something that this function did not make.
    """
    of = dimensions(like)
    if seed < 0:
        raise refuse("seed", seed, allowed="0 or a positive whole number", fix="choose another seed")
    shards = _shards(of, shard, f"{GENERATOR}, {like}, seed {seed}")
    texts = {**small_files(of), **_index(shards)}

    def holds(folder: Path) -> bool:
        try:
            return all((folder / name).read_bytes() == content for name, content in texts.items()) and all(
                _begins(folder / one.name, one) for one in shards
            )
        except OSError:
            return False

    def write(folder: Path) -> None:
        for name, content in texts.items():
            (folder / name).write_bytes(content)
        _write_weights(folder, shards, of, seed, workers or os.cpu_count() or 1, progress)

    if holds(destination):
        return destination
    refuse_foreign(destination, GENERATOR)
    destination.parent.mkdir(parents=True, exist_ok=True)
    require_space(destination.parent, sum(one.size for one in shards), f"a model like {like}")
    appear(destination, write, holds)
    return destination


# --- layout ---------------------------------------------------------------------------------------


def _shards(of: Dimensions, largest: int, generator: str) -> list[_Shard]:
    groups: list[list[tuple[str, int, tuple[int, ...]]]] = [[]]
    filled = 0
    for number, (name, shape) in enumerate(sorted(shapes(of).items())):
        size = math.prod(shape) * WIDTH
        if groups[-1] and filled + size > largest:
            groups.append([])
            filled = 0
        groups[-1].append((name, number, shape))
        filled += size
    several = len(groups) > 1
    return [
        _shard(
            f"model-{place:05}-of-{len(groups):05}.safetensors" if several else "model.safetensors",
            group,
            generator,
        )
        for place, group in enumerate(groups, 1)
    ]


def _shard(name: str, group: list[tuple[str, int, tuple[int, ...]]], generator: str) -> _Shard:
    header: dict[str, Any] = {"__metadata__": {"format": "pt", "generator": generator}}
    end = 0
    for tensor, _, shape in group:
        begin, end = end, end + math.prod(shape) * WIDTH
        header[tensor] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the data begins where numbers may begin
    head = len(text).to_bytes(8, "little") + text
    tensors = tuple(
        _Tensor(tensor, number, shape, len(head) + header[tensor]["data_offsets"][0])
        for tensor, number, shape in group
    )
    return _Shard(name, head, tensors, len(head) + end)


def _index(shards: list[_Shard]) -> dict[str, bytes]:
    """Return model.safetensors.index.json, which a model of one file does not have."""
    if len(shards) == 1:
        return {}
    total = sum(tensor.count * WIDTH for one in shards for tensor in one.tensors)
    names = {tensor.name: one.name for one in shards for tensor in one.tensors}
    document = {"metadata": {"total_size": total}, "weight_map": names}
    return {"model.safetensors.index.json": (json.dumps(document, indent=2) + "\n").encode()}


def _begins(path: Path, shard: _Shard) -> bool:
    with path.open("rb") as file:
        return path.stat().st_size == shard.size and file.read(len(shard.head)) == shard.head


# --- weights --------------------------------------------------------------------------------------


def _write_weights(
    folder: Path,
    shards: list[_Shard],
    of: Dimensions,
    seed: int,
    workers: int,
    progress: Callable[[int], None],
) -> None:
    """Write every file once, by so many threads: numpy lets others run while it makes numbers."""
    files = []
    pool = ThreadPoolExecutor(workers)
    try:
        for shard in shards:
            files.append(os.open(folder / shard.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
            os.ftruncate(files[-1], shard.size)
            os.pwrite(files[-1], shard.head, 0)
        places = [
            (file, tensor, start)
            for file, shard in zip(files, shards, strict=True)
            for tensor in shard.tensors
            for start in range(0, tensor.count, BLOCK)
        ]
        # What one of them raises is raised here.
        for size in pool.map(lambda place: _write_block(*place, of=of, seed=seed), places):
            progress(size)
    finally:
        pool.shutdown(cancel_futures=True)
        for file in files:
            os.close(file)


def _write_block(file: int, tensor: _Tensor, start: int, *, of: Dimensions, seed: int) -> int:
    """Write a block of a tensor; return its bytes."""
    count = min(BLOCK, tensor.count - start)
    if tensor.name.endswith("norm.weight"):
        numbers = np.full(count, 0x3F80, "<u2")  # 1.0
    else:
        numbers = _random(np.random.PCG64([seed, tensor.number, start]), count, of.deviation)
    if tensor.name == _head(of):
        for first, end in _silent(of, start, start + count):
            numbers[first - start : end - start] = 0
    written, data = 0, numbers.data.cast("B")
    while written < len(data):
        written += os.pwrite(file, data[written:], tensor.offset + start * WIDTH + written)
    return written


def _random(raw: np.random.PCG64, count: int, deviation: float) -> NDArray[np.uint16]:
    """Return numbers in bfloat16, evenly distributed with this deviation.

    PCG64's raw output is fixed for good, and all that is done to it is exact; the upper half of a float32 is
    its bfloat16.
    """
    words = np.asarray(raw.random_raw(-(-count // 4)), "<u8").view("<i2")[:count]
    numbers = words.astype("<f4")
    # Even numbers from -32768 to 32767 have a deviation of 32768 through the square root of three.
    numbers *= np.float32(deviation * 1.7320508 / 32768)
    return np.ascontiguousarray(numbers.view("<u2")[1::2])


def _head(of: Dimensions) -> str:
    return "model.embed_tokens.weight" if of.tied else "lm_head.weight"


def _silent(of: Dimensions, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield what between two numbers of the head is zero: rows of unreadable ids, and beyond the tokenizer.

    A server that always takes the best token never meets an id then that its tokenizer does not know.
    """
    ids = unreadable()
    rows = [(row, row + 1) for row in ids] + [(max(ids) + 1, of.vocabulary)]
    for first, last in rows:
        low, high = max(begin, first * of.hidden), min(end, last * of.hidden)
        if low < high:
            yield low, high
