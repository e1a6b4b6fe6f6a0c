"""What Knative is told by annotations and fields, and which of its features a pod needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from components.config.knative import KnativeSettings
from components.config.model_spec import ModelSpec

DEADLINE = "serving.knative.dev/progress-deadline"


_ANNOTATIONS = {
    "stable_window_seconds": "autoscaling.knative.dev/window",
    "scale_down_delay_seconds": "autoscaling.knative.dev/scale-down-delay",
    "last_pod_retention_seconds": "autoscaling.knative.dev/scale-to-zero-pod-retention-period",
}


def revision_annotations(settings: ModelSpec) -> dict[str, str]:
    """Return what Knative is told; KServe copies an InferenceService's annotations to its revisions.

    Knative gives a revision up that has no ready pod by its deadline, 600 s as shipped: ours is the time
    that the stack gives a start (`modelcar:startTimeoutSeconds`).
    """
    if settings.deployment_mode != "Knative":
        return {}
    own = _own(settings)
    values = {name: getattr(own, field) for field, name in _ANNOTATIONS.items()}
    told = {name: f"{seconds}s" for name, seconds in values.items() if seconds is not None}
    return {DEADLINE: f"{settings.start_timeout_seconds}s", **told}


def timeout(settings: ModelSpec) -> dict[str, Any]:
    """Return the predictor's field for the longest request; Standard mode has none."""
    return {"timeout": _own(settings).timeout_seconds} if settings.deployment_mode == "Knative" else {}


#: Fields of a pod that Knative takes only where a feature is on: the feature, and whether it is as shipped.
#: (0.48, pkg/apis/serving/fieldmask.go and pkg/apis/config/features.go)
_FEATURES = {
    "affinity": ("kubernetes.podspec-affinity", False),
    "nodeSelector": ("kubernetes.podspec-nodeselector", False),
    "priorityClassName": ("kubernetes.podspec-priorityclassname", False),
    "runtimeClassName": ("kubernetes.podspec-runtimeclassname", False),
    "schedulerName": ("kubernetes.podspec-schedulername", False),
    "securityContext": ("kubernetes.podspec-securitycontext", False),
    "tolerations": ("kubernetes.podspec-tolerations", False),
    "topologySpreadConstraints": ("kubernetes.podspec-topologyspreadconstraints", False),
}
_VOLUMES = {
    "emptyDir": ("kubernetes.podspec-volumes-emptydir", True),
    "hostPath": ("kubernetes.podspec-volumes-hostpath", False),
    "image": ("kubernetes.podspec-volumes-image", False),
}


def features_needed(pods: Mapping[str, Any], volumes: Iterable[Mapping[str, Any]]) -> dict[str, bool]:
    """Return the features of Knative that a predictor needs, each with whether it is on as shipped.

    Args:
        pods: of the predictor; volumes: of its server.
    """
    found = dict(_FEATURES[field] for field in pods if field in _FEATURES)
    return found | dict(_VOLUMES[kind] for volume in volumes for kind in volume if kind in _VOLUMES)


def features_off(needed: Mapping[str, bool], data: Mapping[str, str] | None) -> list[str]:
    """Return those that a ConfigMap `config-features` leaves off; `allowed` is as good as `enabled`."""
    told = {name: text.casefold() for name, text in (data or {}).items()}
    return [
        name
        for name, shipped in needed.items()
        if told.get(name, "enabled" if shipped else "disabled") not in {"enabled", "allowed"}
    ]


def _own(settings: ModelSpec) -> KnativeSettings:
    return settings.knative or KnativeSettings()
