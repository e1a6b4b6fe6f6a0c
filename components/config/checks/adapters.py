"""LoRA adapters in a model's image: what vLLM refuses of them (0.23, lora/peft_helper.py and lora_model.py).

The rules are read from each adapter's adapter_config.json, which PEFT writes and a lock keeps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from components.config.command_line import options, said
from components.config.known_model import KnownModel
from components.config.model_path import inside
from components.config.model_spec import ModelSpec
from components.config.problems import problem
from components.config.vllm_values import DEFAULT_RANK, Rank
from modelcar.errors import Problem

CONFIG = "adapter_config.json"
#: vLLM looks for these, in this order.
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt")
RANKS: tuple[int, ...] = get_args(Rank)

_RANK_OPTION = "--max-lora-rank"
#: What vLLM has no way to compute: keys of adapter_config.json that have to be empty.
_UNKNOWN_TO_VLLM = ("modules_to_save", "use_dora", "lora_bias", "trainable_token_indices")
_MERGE = (
    "merge it into the model and lock that (PEFT: merge_and_unload, save_pretrained), or train it without"
)
_PATTERNS = ("rank_pattern", "alpha_pattern")


def _named(settings: ModelSpec) -> Iterator[tuple[str, str]]:
    """Yield each adapter's key and folder in the model."""
    for number, module in enumerate(settings.vllm.lora_modules if settings.vllm else ()):
        if module.path:
            yield f"vllm.loraModules[{number}].path", module.path
    for _, path in paths_in_arguments(settings.server_args):
        folder = inside(path)
        if folder:
            yield "serverArgs", folder


def paths_in_arguments(arguments: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield the option and path of each adapter that `--lora-modules` and `--default-mm-loras` name."""
    for name, values in options(arguments):
        if name == "--lora-modules":
            yield from ((name, str(module["path"])) for module in _modules(values) if "path" in module)
        if name == "--default-mm-loras" and isinstance(found := _json(values[0] if values else ""), dict):
            yield from ((name, str(path)) for path in found.values())


def names_in_arguments(arguments: tuple[str, ...]) -> Iterator[str]:
    """Yield the names that `--lora-modules` gives adapters."""
    for name, values in options(arguments):
        if name == "--lora-modules":
            yield from (str(module.get("name")) for module in _modules(values))


def _modules(values: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Yield what each value of `--lora-modules` says of adapters."""
    for value in values:
        if "=" in value and "," not in value:  # as vLLM tells NAME=PATH from JSON
            name, _, path = value.partition("=")
            yield {"name": name, "path": path}
            continue
        found = _json(value)
        yield from (one for one in (found if isinstance(found, list) else [found]) if isinstance(one, dict))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def problems(settings: ModelSpec) -> Iterator[Problem]:
    """Yield a rank among the server's own arguments that vLLM does not know."""
    rank = said(settings.server_args).get(_RANK_OPTION)
    if rank is not None and rank not in map(str, RANKS):
        yield problem(
            "serverArgs",
            f"{_RANK_OPTION} {rank}",
            ", ".join(map(str, RANKS)),
            "take the smallest of these that is not below the adapters' ranks",
        )


def unfit(settings: ModelSpec, model: KnownModel) -> Iterator[Problem]:
    """Yield what the model's adapters lack, and what vLLM refuses of them."""
    for key, folder in _named(settings):
        wanted = f"{folder}/{CONFIG}"
        if wanted not in model.files:
            known = sorted(path.rpartition("/")[0] for path in model.files if path.endswith(f"/{CONFIG}"))
            yield problem(
                key,
                f"{folder}: the model's lock has no {wanted}",
                ", ".join(known) or f"a folder of the model that has {CONFIG}; it has none",
                "put the adapter there, and lock the model again",
            )
            continue
        if not any(f"{folder}/{name}" in model.files for name in WEIGHTS):
            yield problem(
                key,
                f"{folder}: the model's lock has no weights of it",
                " or ".join(WEIGHTS),
                f"put {WEIGHTS[0]} there (pickled ones take --allow-pickle), and lock the model again",
            )
        if wanted in model.kept:
            for value, allowed, fix in _faults(model.kept[wanted], _highest(settings)):
                yield problem(key, f"{folder}: {value}", allowed, fix)


def _highest(settings: ModelSpec) -> int:
    typed = settings.vllm.max_lora_rank if settings.vllm else None
    text = said(settings.server_args).get(_RANK_OPTION) or ""
    return typed or (int(text) if text.isdecimal() else DEFAULT_RANK)


def _faults(adapter: Mapping[str, Any], highest: int) -> Iterator[tuple[str, str, str]]:
    """Yield what vLLM refuses of an adapter: what was found, what is allowed, and the fix."""
    kind = adapter.get("peft_type", "LORA")
    if kind != "LORA":
        yield f"peft_type {kind}, which vLLM does not serve", "LORA", _MERGE
        return
    again = "lock the adapter as PEFT saved it (save_pretrained)"
    rank = adapter.get("r")
    if type(rank) is not int or rank < 1:
        yield f"r is {rank!r}", "the adapter's rank, a number", again
    else:
        yield from _rank_faults(max([rank, *_numbers(adapter.get("rank_pattern"))]), highest)
    for name in ("lora_alpha", "target_modules"):
        if not adapter.get(name):
            yield f"{name} is {adapter.get(name)!r}", f"{CONFIG} with {name}", again
    for name in _UNKNOWN_TO_VLLM:
        if adapter.get(name):
            yield (
                f"{name} is {json.dumps(adapter[name])[:80]}, and vLLM has no way to load that",
                "none",
                _MERGE,
            )
    if (bias := adapter.get("bias", "none")) != "none":
        yield f"bias {bias}, and vLLM has no way to load that", "none", _MERGE


def _numbers(pattern: Any) -> list[int]:
    values = pattern.values() if isinstance(pattern, dict) else ()
    return [value for value in values if type(value) is int]


def _rank_faults(rank: int, highest: int) -> Iterator[tuple[str, str, str]]:
    enough = next((size for size in RANKS if size >= rank), None)
    if enough is None:
        most = f"{RANKS[-1]} at most"
        yield f"rank {rank}, and vLLM takes at most {RANKS[-1]}", most, _MERGE.replace("without", "with less")
    elif rank > highest:
        fix = f"pulumi config set --path modelcar:vllm.maxLoraRank {enough}"
        yield f"rank {rank}, above maxLoraRank {highest}", f"maxLoraRank {enough} or more", fix


def doubts(settings: ModelSpec, model: KnownModel) -> Iterator[str]:
    """Yield what cannot be checked, and what vLLM passes over."""
    for key, folder in _named(settings):
        path = f"{folder}/{CONFIG}"
        if path in model.files and path not in model.kept:
            yield (
                f"modelcar:{key}: {folder}: its {CONFIG} is not beside the lock, so rank and kind are not "
                "checked; lock the model again"
            )
        for name in _PATTERNS:
            if model.kept.get(path, {}).get(name):
                yield (
                    f"modelcar:{key}: {folder}: vLLM does not read {name}, and scales each layer by "
                    "lora_alpha / r: the adapter answers otherwise than it was trained to"
                )
