"""What no setting can know alone: all checks of settings that do not go together."""

from __future__ import annotations

from components.config.checks import (
    autoscaling,
    cluster,
    google,
    image,
    kernels,
    knative,
    scheduling,
    server,
    service,
    signature,
    termination,
    vllm,
)
from components.config.settings import Settings
from modelcar.errors import Problem

_CHECKS = (*image.CHECKS, *service.CHECKS, *server.CHECKS, *cluster.CHECKS)
_SECTIONS = (vllm, scheduling, termination, kernels, autoscaling, knative)


def all_problems(settings: Settings) -> list[Problem]:
    """Return everything that is wrong with a model's settings taken together."""
    found = [one for check in _CHECKS if (one := check(settings)) is not None]
    found += [one for section in _SECTIONS for one in section.problems(settings)]
    if settings.google:
        found += google.problems(settings, settings.google)
    if settings.signature:
        found += signature.problems(settings.signature)
    return found
