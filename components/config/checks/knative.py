"""`modelcar:knative` belongs to one deployment mode."""

from __future__ import annotations

from components.config.model_spec import ModelSpec
from components.config.problems import problem
from modelcar.errors import Problem


def problems(settings: ModelSpec) -> list[Problem]:
    """Return what does not go together."""
    if settings.knative is None or settings.deployment_mode == "Knative":
        return []
    value = "set, in deployment mode Standard, which has none of it"
    fix = "remove modelcar:knative; zero pods in mode Standard: modelcar:autoscaling"
    return [problem("knative", value, "nothing, or deploymentMode Knative", fix)]
