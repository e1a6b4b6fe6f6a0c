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
from typing import TYPE_CHECKING, Any

from pydantic import Field

from components.checks import problem
from components.google.drivers import vllm_release
from components.google.settings import Section
from modelcar.errors import Problem

if TYPE_CHECKING:
    from components.settings import Settings

#: vLLM's own argument, and the first release that has it: https://github.com/vllm-project/vllm/pull/36666
ARGUMENT = "--shutdown-timeout"
SINCE = (0, 18, 0)
#: Seconds that a server takes to end once nothing is left to answer: its engine, workers and GPU memory.
TEARDOWN = 20


class TerminationSettings(Section):
    """`modelcar:termination`: how a pod that is deleted, replaced or scaled down ends (Standard mode).

    grace_period_seconds: from the deletion to SIGKILL (the pod's terminationGracePeriodSeconds). Nodes that
        go may give less: spot nodes of Google Cloud 15 s.
    pre_stop_seconds: before the server is told to end, so that proxies and load balancers learn that the pod
        takes no new requests; 0 leaves the hook out.
    drain_seconds: in which vLLM finishes what it has begun (its --shutdown-timeout); what the grace period
        leaves where not set, and 0 leaves the argument out, so that vLLM cuts answers off. Another server
        (runtime custom) has to do it by itself.
    """

    grace_period_seconds: int = Field(330, ge=1, le=86400)
    pre_stop_seconds: int = Field(10, ge=0, le=3600)
    drain_seconds: int | None = Field(None, ge=0, le=86400)


def grace_period(settings: Settings) -> dict[str, Any]:
    """Return the pod's grace period; Knative refuses the field, and takes a request's time limit for it."""
    if settings.deployment_mode != "Standard":
        return {}
    return {"terminationGracePeriodSeconds": settings.termination.grace_period_seconds}


def lifecycle(settings: Settings) -> dict[str, Any]:
    """Return the container's `preStop`: a sleep of the kubelet's own (Kubernetes 1.30), for any image.

    Knative refuses it, and has one of its own: the container is told when its proxy has no request left.
    """
    seconds = settings.termination.pre_stop_seconds
    if settings.deployment_mode != "Standard" or not seconds:
        return {}
    return {"lifecycle": {"preStop": {"sleep": {"seconds": seconds}}}}


def arguments(settings: Settings) -> list[str]:
    """Return what makes vLLM finish what it has begun; nothing where the stack's own arguments say it."""
    if not _has_argument(settings) or _said(settings) is not None:
        return []
    seconds = drain(settings)
    return [f"{ARGUMENT}={seconds}"] if seconds else []


def drain(settings: Settings) -> int:
    """Return the seconds in which a server can finish what it has begun."""
    said = settings.termination
    if said.drain_seconds is not None:
        return said.drain_seconds
    return max(said.grace_period_seconds - said.pre_stop_seconds - TEARDOWN, 0)


def patience(settings: Settings) -> int:
    """Return how long a pod that goes may take, in seconds; in Knative mode that is Knative's affair."""
    return settings.termination.grace_period_seconds if settings.deployment_mode == "Standard" else 0


def problems(settings: Settings) -> Iterator[Problem]:
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
    told = _said(settings)
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


def doubts(settings: Settings) -> Iterator[str]:
    """Yield what a reviewer should know of a server that cannot finish what it has begun."""
    release = vllm_release(settings.server_image)
    if settings.runtime == "vllm" and release and release < SINCE:
        yield (
            f"{settings.key}: vLLM {'.'.join(map(str, release))} has no {ARGUMENT} "
            f"({'.'.join(map(str, SINCE))} and newer have): answers are cut off when a pod goes"
        )


def _has_argument(settings: Settings) -> bool:
    if settings.runtime != "vllm" or settings.deployment_mode != "Standard":
        return False
    release = vllm_release(settings.server_image)
    return release is None or release >= SINCE


def _said(settings: Settings) -> str | None:
    """Return the value that the stack's own arguments give; empty where the value is missing."""
    for number, argument in enumerate(settings.server_args):
        name, separator, value = argument.partition("=")
        if name.replace("_", "-") == ARGUMENT:
            following = settings.server_args[number + 1 : number + 2]
            return value if separator else "".join(following)
    return None


def _keys(settings: Settings) -> list[str]:
    said = settings.termination
    return [str(type(said).model_fields[name].alias) for name in sorted(said.model_fields_set)]
