"""A tiny Qwen2 model that knows one text by heart, for a first answer that is a sentence.

It has the layout of `tiny_model`, and says the same whatever it is asked. Nothing is trained: every piece of
the text is a token of its own, its embedding is a direction of its own, and the head leads from each one to
the next. Attention and feed-forward parts are computed as in any model, and add nothing.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modelcar.qwen2 import TOKENS, shapes, small_files, token_of, vocabulary
from modelcar.tiny_model import GENERATOR, TINY, make_folder, random_weights, safetensors

#: What it says.
TEXT = (
    "I am a tiny model, and this is all that I know: my weights were locked, packed into an OCI image, "
    "pushed to a registry, pinned by digest, and served by KServe on Kubernetes; no model hub was asked. "
    "Now try a model of yours."
)
#: How sure it is: what the head gives the next piece, beside 0 for all others.
_CERTAIN = 4.0


def pieces(text: str = TEXT) -> list[str]:
    """Return a text cut before spaces into parts that are all different, and no tokens of any model here.

    Raises:
        ValueError: its end is no such part.
    """
    found: list[str] = []
    known, part = vocabulary(), ""
    for word in re.findall(r"\s*\S+", text):
        part += word
        if part not in found and token_of(part) not in known:
            found.append(part)
            part = ""
    if part:
        raise ValueError(f"the text ends with {part!r}, which is a token already")
    return found


def make_demo_model(destination: Path) -> Path:
    """Make the model's folder, byte for byte the same on every machine, and return it.

    About 4 MB, float32; as `make_tiny_model` in all else.

    Raises:
        InputError: `destination` holds something that this project did not make.
    """
    words = [token_of(piece) for piece in pieces()]
    dimensions = replace(TINY, vocabulary=TOKENS + len(words), tied=False)
    tensors = random_weights(dimensions, seed=0)
    for name in shapes(dimensions):
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensors[name] = np.zeros_like(tensors[name])  # nothing is added to what the embedding says
    tensors["model.embed_tokens.weight"], tensors["lm_head.weight"] = _by_heart(dimensions.hidden, len(words))
    files = {
        **small_files(dimensions, words),
        "model.safetensors": safetensors(tensors, {"format": "pt", "generator": f"{GENERATOR}, by heart"}),
    }
    return make_folder(destination, files)


def _by_heart(hidden: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the embeddings and the head; the special tokens come last, and the first of them ends a text."""
    first, end = TOKENS - 3, TOKENS - 3 + count
    total = TOKENS + count
    embeddings, head = np.zeros((total, hidden), np.float32), np.zeros((total, hidden), np.float32)
    embeddings[:, 0] = 1  # whatever a question ends with
    for number in range(count):
        embeddings[first + number] = 0
        embeddings[first + number, number + 1] = 1
    for number in range(count + 1):  # from direction `number` to the next token
        head[first + number if number < count else end, number] = _CERTAIN
    return embeddings, head
