"""The probes of a model server's container."""

from __future__ import annotations

import math
from typing import Any

from components.config.model_spec import ModelSpec
from components.config.probes import LivenessProbe, ReadinessProbe


def probes(settings: ModelSpec) -> dict[str, Any]:
    """Return the server's probes, as a container has them."""
    said = settings.probes
    found = {
        "startupProbe": {
            "httpGet": _get(settings, None),
            "periodSeconds": said.startup.period_seconds,
            "timeoutSeconds": said.startup.timeout_seconds,
            "failureThreshold": math.ceil(settings.start_timeout_seconds / said.startup.period_seconds),
        },
        "readinessProbe": _probe(settings, said.readiness),
    }
    if said.liveness.enabled:
        found["livenessProbe"] = _probe(settings, said.liveness)
    return found


def _probe(settings: ModelSpec, said: ReadinessProbe | LivenessProbe) -> dict[str, Any]:
    return {
        "httpGet": _get(settings, said.path),
        "periodSeconds": said.period_seconds,
        "timeoutSeconds": said.timeout_seconds,
        "failureThreshold": said.failure_threshold,
    }


def _get(settings: ModelSpec, path: str | None) -> dict[str, Any]:
    return {"path": path or settings.health_path, "port": settings.server_port}
