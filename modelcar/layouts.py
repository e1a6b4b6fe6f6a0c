"""Which files make a model that a server can load: configuration, weights, tokenizer. Looks at names only.

Names are all that a hub tells before a download, so a folder and a repository are held to the same here. A
layout that is not known need not be wrong: it is a doubt, and `layout: any` takes it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

from modelcar.choosing import PICKLE_SUFFIXES
from modelcar.paths import printable

#: `auto` is what vLLM loads; `any` is whatever there is, for a server that reads it.
LAYOUTS = ("auto", "any")

CONFIG = "config.json"
#: Mistral's own configuration; vLLM reads it where the weights are `consolidated*.safetensors` (0.23,
#: transformers_utils/config.py: get_config).
PARAMS = "params.json"
_CONSOLIDATED = re.compile(r"consolidated.*\.safetensors")

_TOKENIZER = re.compile(
    r"tokenizer(_\d+)?\.(json|jsonl|model|tok\.json)|tokenizer(\.mm)?\.model\.v.+|tekken.*\.json|vocab\.txt"
    r"|.+\.tiktoken|tiktoken\.model|.+\.spm|(spiece|spm|sentencepiece.*)\.model"
)
#: Those that vLLM reads with Mistral's own library (mistral-common); it finds no others beside params.json
#: alone (0.23, tokenizers/registry.py).
_MISTRALS = re.compile(r"tekken\.json|tokenizer(\.mm)?\.model\.v.+")
_IN_TWO = {"vocab.json", "merges.txt"}
#: Parts of names that speak of a tokenizer: its data, settings or code.
_SIGNS = ("tok", "vocab", "merges", "bpe", "spm", "sentencepiece", "spiece")

_NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")

_ANY = "--layout any (model.yaml: layout: any)"


class Fault(NamedTuple):
    """What is wrong with a model's files: where, what was found, what is allowed, and the fix."""

    path: str
    value: str
    allowed: str
    fix: str


def config_of(paths: Collection[str]) -> str | None:
    """Return the file that vLLM takes a model's configuration from; None where there is none."""
    if PARAMS in paths and any(map(_CONSOLIDATED.fullmatch, paths)):
        return PARAMS
    return CONFIG if CONFIG in paths else None


def is_tokenizer(path: str) -> bool:
    """Tell whether a file is a tokenizer's data, of those that are known."""
    return bool(_TOKENIZER.fullmatch(path)) or path == "vocab.json"


def faults(paths: Collection[str], skipped: Mapping[str, str], layout: str = "auto") -> Iterator[Fault]:
    """Yield what is missing.

    Args:
        paths: of the files that are taken.
        skipped: why others are left out, by path.
        layout: one of LAYOUTS.
    """
    top = {path for path in paths if "/" not in path}
    if layout == "auto":
        yield from _lacks(top, skipped)
    yield from _lost_shards(paths, skipped)


def _lacks(top: Collection[str], skipped: Mapping[str, str]) -> Iterator[Fault]:
    another = f"or, for another server than vLLM, take it as it is: {_ANY}"
    if config_of(top) is None:
        why = skipped.get(CONFIG)
        yield Fault(
            CONFIG,
            f"left out: {why}" if why else "there is no such file",
            f"the model's {CONFIG} at the top, or Mistral's {PARAMS} beside consolidated*.safetensors",
            "name the model's own repository, or the folder that holds it (an adapter or a part of a model "
            f"has none); {another}",
        )
    if not any(path.lower().endswith((".safetensors", *PICKLE_SUFFIXES)) for path in top):
        yield Fault(
            "*.safetensors",
            "there is no such file",
            "the weights as safetensors at the top",
            f"take the model's safetensors files; other formats have to be converted; {another}",
        )
    if not _has_tokenizer(top) and not _signs(top):
        yield Fault(
            "tokenizer.json",
            "there is no tokenizer",
            "tokenizer.json, tokenizer.model, vocab.json+merges.txt, tekken.json, *.tiktoken, or another",
            f"take the whole repository of the model, not the weights alone; if it needs none: {_ANY}",
        )


def doubts(paths: Collection[str], layout: str = "auto") -> tuple[str, ...]:
    """Return what a user should know of a layout that is not known."""
    top = {path for path in paths if "/" not in path}
    signs = _signs(top)
    if layout == "auto" and CONFIG not in top and PARAMS in top and not any(map(_MISTRALS.fullmatch, top)):
        return (
            f"{PARAMS} without {CONFIG}, and no tokenizer of Mistral's own (tekken.json, tokenizer.model.v3)."
            f" If the server can read it, say so: {_ANY}",
        )
    if layout != "auto" or _has_tokenizer(top) or not signs:
        return ()
    return (
        f"no tokenizer of a known kind; {', '.join(map(printable, signs[:3]))} may be one, or its code. If "
        f"the server can read it, say so: {_ANY}",
    )


def _has_tokenizer(top: Collection[str]) -> bool:
    return any(map(_TOKENIZER.fullmatch, top)) or set(top) >= _IN_TWO


def _signs(top: Collection[str]) -> list[str]:
    return sorted(path for path in top if any(sign in path.lower() for sign in _SIGNS))


def _lost_shards(paths: Collection[str], skipped: Mapping[str, str]) -> Iterator[Fault]:
    """Shards are numbered; without an index, their numbers tell whether all are there."""
    indexed = {str(PurePosixPath(path).parent) for path in paths if path.endswith(".safetensors.index.json")}
    counts: dict[tuple[str, str, int], set[int]] = {}
    for path in paths:
        pure = PurePosixPath(path)
        match = _NUMBERED.fullmatch(pure.name)
        if match and str(pure.parent) not in indexed:
            key = (str(pure.parent), match["stem"], int(match["count"]))
            counts.setdefault(key, set()).add(int(match["number"]))
    for (parent, stem, count), numbers in counts.items():
        lost = sorted(set(range(1, count + 1)) - numbers)
        if lost:
            shard = str(PurePosixPath(parent, f"{stem}-{lost[0]:05}-of-{count:05}.safetensors"))
            yield Fault(
                shard,
                f"{'left out' if shard in skipped else 'missing'}, one of {count} shards",
                "all shards",
                "take the whole repository of the model",
            )
