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
from components.config.model_spec import ModelSpec
from components.config.settings import Settings
from modelcar.errors import Problem

_SECTIONS = (vllm, scheduling, termination, kernels, autoscaling, knative)


def spec_problems(spec: ModelSpec) -> list[Problem]:
    """Return what is wrong with a model as a cluster gets it, whatever its image and its stack."""
    checks = (*service.CHECKS, *server.CHECKS)
    found = [one for check in checks if (one := check(spec)) is not None]
    return found + [one for section in _SECTIONS for one in section.problems(spec)]


def all_problems(settings: Settings) -> list[Problem]:
    """Return everything that is wrong with a model's settings taken together."""
    checks = (*image.CHECKS, *cluster.CHECKS)
    found = [one for check in checks if (one := check(settings)) is not None]
    found += spec_problems(settings)
    if settings.google:
        found += google.problems(settings, settings.google)
    if settings.signature:
        found += signature.problems(settings.signature)
    return found
