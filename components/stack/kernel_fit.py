"""Whether the kernels in a model's lock fit the pods of a stack: what a preview can know."""

from __future__ import annotations

from components.config.gpus import CARDS
from components.config.problems import problem
from components.config.settings import Settings
from components.manifests.kernels import arguments_of, as_written, server_of
from modelcar.errors import Problem
from modelcar.kernels import Kernels, Target
from modelcar.lock import Lock


def renew(settings: Settings, stack: str) -> str:
    """Return how kernels are saved for what a stack serves with now."""
    model = f" ARGS='--model {settings.name}'" if settings.name else ""
    return f"make kernels STACK={stack}{model}"


def misfit(settings: Settings, lock: Lock) -> str | None:
    """Return why none of a lock's kernels fits a model's pods; None where one may, or there are none."""
    if not lock.kernels or settings.runtime == "custom" or settings.kernels == "off":
        return None
    server, arguments = server_of(settings), arguments_of(settings)
    of_server = [entry for entry in lock.kernels if entry.target.server == server]
    if not of_server:
        versions = ", ".join(sorted({f"vLLM {entry.vllm}" for entry in lock.kernels}))
        return f"its kernels are for another server image ({versions})"
    same = [
        entry
        for entry in of_server
        if entry.target.arguments == as_written(arguments, entry.target.arguments)
    ]
    if not same:
        other = of_server[0].target.arguments
        arguments = as_written(arguments, other)
        more = [f"+{text}" for text in arguments if text not in other]
        less = [f"-{text}" for text in other if text not in arguments]
        told = " ".join([*less, *more]) or "their order"
        return f"its kernels are for other arguments of the server ({told})"
    card = CARDS.get(settings.google.nodes.gpu) if settings.google else None
    if not any(_on(entry, card, settings.gpu_count) for entry in same):
        there = ", ".join(sorted({f"{entry.target.count} x {entry.target.device}" for entry in same}))
        pods = f"{settings.gpu_count} x {card or 'GPU'}" if settings.gpu_count else "no GPU"
        return f"its kernels are for {there}, and its pods have {pods}"
    return None


def _on(entry: Kernels, card: str | None, count: int) -> bool:
    target: Target = entry.target
    if target.kind == "cpu":
        return count == 0
    return target.count == count and (card is None or card in target.device)


def unfit(settings: Settings, lock: Lock | None, stack: str) -> Problem | None:
    """Return the problem with kernels that are required, and that no pod could use."""
    if settings.kernels != "require" or lock is None:
        return None
    why = misfit(settings, lock) if lock.kernels else "its lock has none"
    if why is None:
        return None
    fix = f"set it to use; once the model serves, {renew(settings, stack)}; then set require"
    return problem("kernels", f"require, and {settings.model}: {why}", "kernels that fit its pods", fix)


def doubt(settings: Settings, lock: Lock | None, stack: str) -> str | None:
    """Return what a reviewer should know of kernels that no pod will use; None where there is nothing."""
    why = misfit(settings, lock) if lock else None
    if why is None:
        return None
    return f"{settings.key}: {why}: its pods compile anew. Once it serves: {renew(settings, stack)}"
