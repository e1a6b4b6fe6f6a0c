"""On which cards of this machine a stack is served, decided before anything is built, and said in words."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from local import gpu, servers
from local.gpu import Finding, Gpus
from local.instance import cache_root
from local.room import GIB, existing
from local.stack_file import models_of
from modelcar.errors import refuse

#: The share of a card's memory that vLLM takes where nothing else is said, all of it at its start
#: (vllm/config/cache.py, gpu_memory_utilization).
UTILIZATION = 0.92


@dataclass(frozen=True)
class Serving:
    """What was found and chosen.

    found: what was found of GPUs.
    gpus: the cards that the stack is served on; None: it is served on the CPU.
    kind: name of the model server; one on the CPU is chosen again once the platform runs, which takes memory.
    reason: why, for people.
    """

    found: Finding
    gpus: Gpus | None
    kind: str
    reason: str


@dataclass(frozen=True)
class Wanted:
    """What a stack's models ask for: the GPUs of each that is to serve, and whether the stack says so."""

    counts: tuple[int, ...]
    said: bool

    @property
    def total(self) -> int:
        """GPUs of all pods together."""
        return sum(self.counts)


def decide(settings: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Serving:
    """Choose between this machine's GPU and its CPU for a stack.

    Args:
        settings: of the stack, as its own file has them.
        environment: MODELCAR_SERVER, CUDA_VISIBLE_DEVICES and PATH are read from it.

    Raises:
        InputError: a GPU is asked for, by MODELCAR_SERVER or modelcar:gpuCount, that is not there or does not
            fit; or more GPUs are asked for than there are.
    """
    asked = environment.get("MODELCAR_SERVER") or "auto"
    found, wanted = gpu.look(environment), wanted_gpus(settings)
    cards = len(found.gpus.cards) if found.gpus else 0
    usable, why = found, ""
    if cards and wanted.said and not wanted.total:
        why = "modelcar:gpuCount is 0"
    elif cards and asked == "auto" and not wanted.said and wanted.total > cards:
        why = f"{len(wanted.counts)} models take a GPU each, and this machine has {_cards(cards)}"
    if why:
        usable = Finding(None, why)
    memory, disk = psutil.virtual_memory().available, shutil.disk_usage(existing(cache_root())).free
    kind, reason = servers.choose(asked, memory, disk, cache=cache_root(), found=usable)
    if kind == "vllm-cuda" and found.gpus:
        _require_enough(wanted, found.gpus)
        return Serving(found, found.gpus, kind, reason)
    reason = f"{why}; {reason}" if why else reason
    if wanted.said and wanted.total:
        raise refuse(
            "modelcar:gpuCount",
            f"{wanted.total}, and the model server runs on the CPU: {reason if cards else found.found}",
            allowed="0 where no GPU serves",
            fix=found.fix or "remove modelcar:gpuCount: the machine's own number is its default",
        )
    return Serving(found, None, kind, reason)


def _require_enough(wanted: Wanted, gpus: Gpus) -> None:
    cards = len(gpus.cards)
    if wanted.total <= cards:
        return
    pods = f" of {len(wanted.counts)} models" if len(wanted.counts) > 1 else ""
    raise refuse(
        "modelcar:gpuCount",
        f"{wanted.total}{pods}, and this machine has {_cards(cards)} ({gpus.words()})",
        allowed=f"at most {cards}: pods that ask for more stay Pending",
        fix=f"set it to {cards} in Pulumi.local.yaml"
        if not pods
        else "serve fewer models at a time (modelcar:idle), or all on the CPU (MODELCAR_SERVER=vllm)",
    )


def _cards(count: int) -> str:
    return f"{count} GPU" + ("" if count == 1 else "s")


def wanted_gpus(settings: Mapping[str, Any]) -> Wanted:
    """Return what a stack's file says of GPUs; one for each pod where it says nothing.

    What is wrong in it is left to the program's own checks, which name the key.
    """
    entries = models_of(settings) or [{}]
    serving = [
        {**settings, **entry}
        for entry in entries
        if str(entry.get("idle", settings.get("idle", False))).lower() != "true"
    ]
    said = any("gpuCount" in entry for entry in (settings, *entries))
    pods = [_number(one.get("minReplicas", 1)) for one in serving]
    return Wanted(
        tuple(_number(one.get("gpuCount", 1)) * most for one, most in zip(serving, pods, strict=True)), said
    )


def _number(value: Any) -> int:
    try:
        return max(0, int(value))
    except (TypeError, ValueError):
        return 1


def full_cards(gpus: Gpus, settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield a warning and what helps for each card with less free memory than vLLM takes at its start.

    Args:
        gpus: the cards, while nothing of this project runs on them.
        settings: of the stack, as its own file has them.
    """
    share = _utilization(settings)
    for card in gpus.cards:
        if card.free >= share * card.memory:  # also a card that has no memory of its own, and tells none
            continue
        fitting = math.floor(card.free / card.memory * 100 - 2) / 100
        setting = "set modelcar:vllm.gpuMemoryUtilization"
        free, memory, taken = (size / GIB for size in (card.free, card.memory, share * card.memory))
        yield (
            f"card {card.index} ({card.name}): {free:.1f} of {memory:.1f} GiB are free, and vLLM takes "
            f"{taken:.1f} GiB at its start ({share:.0%}): it will not start",
            "end what holds the memory (nvidia-smi lists it)"
            + (
                f", or let vLLM take less: {setting} to {fitting} in the stack's file"
                if fitting >= 0.05
                else ""
            ),
        )


def _utilization(settings: Mapping[str, Any]) -> float:
    """Return what share of a card's memory vLLM is told to take, by its own setting or as an argument."""
    typed = settings.get("vllm")
    values: list[Any] = [typed.get("gpuMemoryUtilization")] if isinstance(typed, Mapping) else []
    arguments = settings.get("serverArgs")
    for argument in arguments if isinstance(arguments, list) else []:
        name, _, value = str(argument).partition("=")
        values += [value] if name == "--gpu-memory-utilization" else []
    for value in values:
        try:
            return float(value)
        except (TypeError, ValueError):
            continue
    return UTILIZATION
