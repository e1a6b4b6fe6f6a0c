"""`modelcar:knative` belongs to one deployment mode."""

from __future__ import annotations

from collections.abc import Iterator

from components.config.model_spec import ModelSpec
from components.config.problems import problem
from modelcar.errors import Problem

#: Ports of Knative's own proxy in each pod; its webhook refuses them (pkg/apis/serving/k8s_validation.go).
_OF_QUEUE_PROXY = frozenset({8008, 8012, 8013, 8022, 8112, 9090, 9091})


def problems(settings: ModelSpec) -> Iterator[Problem]:
    """Yield what does not go together."""
    if settings.deployment_mode != "Knative":
        if settings.knative:
            value = "set, in deployment mode Standard, which has none of it"
            fix = "remove modelcar:knative; zero pods in mode Standard: modelcar:autoscaling"
            yield problem("knative", value, "nothing, or deploymentMode Knative", fix)
    elif settings.server_port in _OF_QUEUE_PROXY:
        value = f"{settings.server_port}, in deployment mode Knative, whose own proxy has it in each pod"
        allowed = f"a port that is none of {', '.join(map(str, sorted(_OF_QUEUE_PROXY)))}"
        yield problem("serverPort", value, allowed, "set it to 8080")
