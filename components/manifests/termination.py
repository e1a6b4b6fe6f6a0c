"""How a pod ends: grace period, preStop hook, and the server's own argument."""

from __future__ import annotations

from typing import Any

from components.config.checks.termination import ARGUMENT, TEARDOWN, drain_said, takes_drain_argument
from components.config.model_spec import ModelSpec


def grace_period(settings: ModelSpec) -> dict[str, Any]:
    """Return the pod's grace period; Knative refuses the field, and takes a request's time limit for it."""
    if settings.deployment_mode != "Standard":
        return {}
    return {"terminationGracePeriodSeconds": settings.termination.grace_period_seconds}


def lifecycle(settings: ModelSpec) -> dict[str, Any]:
    """Return the container's `preStop`: a sleep of the kubelet's own (Kubernetes 1.30), for any image.

    Knative refuses it, and has one of its own: the container is told when its proxy has no request left.
    """
    seconds = settings.termination.pre_stop_seconds
    if settings.deployment_mode != "Standard" or not seconds:
        return {}
    return {"lifecycle": {"preStop": {"sleep": {"seconds": seconds}}}}


def arguments(settings: ModelSpec) -> list[str]:
    """Return what makes vLLM finish what it has begun; nothing where the stack's own arguments say it."""
    if not takes_drain_argument(settings) or drain_said(settings) is not None:
        return []
    seconds = drain(settings)
    return [f"{ARGUMENT}={seconds}"] if seconds else []


def drain(settings: ModelSpec) -> int:
    """Return the seconds in which a server can finish what it has begun."""
    said = settings.termination
    if said.drain_seconds is not None:
        return said.drain_seconds
    return max(said.grace_period_seconds - said.pre_stop_seconds - TEARDOWN, 0)


def patience(settings: ModelSpec) -> int:
    """Return how long a pod that goes may take, in seconds; in Knative mode that is Knative's affair."""
    return settings.termination.grace_period_seconds if settings.deployment_mode == "Standard" else 0
