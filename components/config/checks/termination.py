"""`modelcar:termination`: let a pod that goes finish the answers that it has begun.

Kubernetes ends a pod in this order: it takes the pod out of its Service and starts `preStop` at the same
time, sends SIGTERM when `preStop` is over, and SIGKILL when `terminationGracePeriodSeconds` are over, counted
from the beginning. vLLM aborts what it has begun as soon as it gets SIGTERM, unless `--shutdown-timeout` says
how long it may go on (0.18 and newer; vllm/v1/engine/core.py, `_handle_shutdown`). So all three are set
together:

    |-- preStop: new requests go elsewhere --|-- drain: the begun ones end --|-- the server ends --|
    |---------------------------- terminationGracePeriodSeconds ---------------------------------|

A pod that has nothing to finish is gone right after `preStop`.
"""

from __future__ import annotations

from collections.abc import Iterator

from components.config.checks.drivers import vllm_release
from components.config.model_spec import ModelSpec
from components.config.problems import problem
from modelcar.errors import Problem

#: vLLM's own argument, and the first release that has it: https://github.com/vllm-project/vllm/pull/36666
ARGUMENT = "--shutdown-timeout"
SINCE = (0, 18, 0)
#: Seconds that a server takes to end once nothing is left to answer: its engine, workers and GPU memory.
TEARDOWN = 20


def problems(settings: ModelSpec) -> Iterator[Problem]:
    """Yield what cannot be in this order, or does not end in time."""
    said = settings.termination
    if settings.deployment_mode != "Standard":
        if said.model_fields_set:
            yield problem(
                "termination",
                f"{', '.join(_keys(settings))} in deployment mode {settings.deployment_mode}",
                "nothing there: Knative ends a pod once its requests have ended",
                "remove it",
            )
        return
    if said.pre_stop_seconds >= said.grace_period_seconds:
        yield problem(
            "termination.preStopSeconds",
            f"{said.pre_stop_seconds}, and the pod is ended after {said.grace_period_seconds}",
            f"less than gracePeriodSeconds {said.grace_period_seconds}",
            "lower it, or raise gracePeriodSeconds",
        )
        return
    told = drain_said(settings)
    if said.drain_seconds is not None and settings.runtime != "vllm":
        yield problem(
            "termination.drainSeconds",
            f"{said.drain_seconds}, and runtime is custom",
            "runtime vllm",
            "say it in serverArgs, as the server names it",
        )
    elif said.drain_seconds is not None and told is not None:
        value = f"{ARGUMENT}, which modelcar:termination.drainSeconds says too"
        yield problem("serverArgs", value, "one of the two", "remove one")
    elif said.drain_seconds or (told or "").isdecimal():
        wanted = said.drain_seconds or int(told or 0)
        needed = said.pre_stop_seconds + wanted + 1
        if needed > said.grace_period_seconds:
            key = "termination.drainSeconds" if said.drain_seconds else "serverArgs"
            shown = "" if said.drain_seconds else f"{ARGUMENT} "
            yield problem(
                key,
                f"{shown}{wanted}, and preStopSeconds {said.pre_stop_seconds}, in a grace period of "
                f"{said.grace_period_seconds}: the server would be killed before",
                f"at most {said.grace_period_seconds - said.pre_stop_seconds - 1}",
                f"set termination.gracePeriodSeconds to {said.pre_stop_seconds + wanted + TEARDOWN}",
            )


def doubts(settings: ModelSpec) -> Iterator[str]:
    """Yield what a reviewer should know of a server that cannot finish what it has begun."""
    release = vllm_release(settings.server_image)
    if settings.runtime == "vllm" and release and release < SINCE:
        yield (
            f"{settings.key}: vLLM {'.'.join(map(str, release))} has no {ARGUMENT} "
            f"({'.'.join(map(str, SINCE))} and newer have): answers are cut off when a pod goes"
        )


def takes_drain_argument(settings: ModelSpec) -> bool:
    """Tell whether the server has the argument, and finishes what it has begun by itself."""
    if settings.runtime != "vllm" or settings.deployment_mode != "Standard":
        return False
    release = vllm_release(settings.server_image)
    return release is None or release >= SINCE


def drain_said(settings: ModelSpec) -> str | None:
    """Return the value that the stack's own arguments give; empty where the value is missing."""
    for number, argument in enumerate(settings.server_args):
        name, separator, value = argument.partition("=")
        if name.replace("_", "-") == ARGUMENT:
            following = settings.server_args[number + 1 : number + 2]
            return value if separator else "".join(following)
    return None


def _keys(settings: ModelSpec) -> list[str]:
    said = settings.termination
    return [str(type(said).model_fields[name].alias) for name in sorted(said.model_fields_set)]
