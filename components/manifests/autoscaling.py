"""The ScaledObject of a model (keda.sh/v1alpha1)."""

from __future__ import annotations

from typing import Any

from components.config.autoscaling import VLLM_METRICS, AutoscalingSettings, Trigger
from components.config.model_spec import ModelSpec
from components.config.quantities import number_text

#: What `serving.kserve.io/autoscalerClass` says where the number of pods is not KServe's affair.
EXTERNAL = "external"
API_VERSION, KIND = "keda.sh/v1alpha1", "ScaledObject"
#: A count is divided by the number of pods: KEDA's default, which its webhook before 2.17 wants written out
#: beside `fallback` (CheckFallbackValid).
_COUNT = "AverageValue"
#: A share is compared as it is.
_METRIC_TYPES = {"kvCacheUse": "Value"}
#: Annotation of a ScaledObject with which KEDA keeps that many pods, whatever its triggers say.
#: https://keda.sh/docs/latest/concepts/scaling-deployments/#pausing-autoscaling
_PAUSED = "autoscaling.keda.sh/paused-replicas"


def of(settings: ModelSpec) -> AutoscalingSettings | None:
    """Return by what KEDA keeps the number of pods; None where it does not."""
    return None if settings.idle else settings.autoscaling


def paused(settings: ModelSpec) -> dict[str, str]:
    """Return the annotations of a ScaledObject that stays where it is while its model is idle."""
    return {_PAUSED: "0"} if settings.idle else {}


def selector(settings: ModelSpec) -> str:
    """Return PromQL's labels of the model's pods, as Prometheus' operator and GKE's set them."""
    pods = f"{settings.service_name}-predictor-.*"
    return f'namespace="{settings.namespace}",pod=~"{pods}"'


def scaled_object(settings: ModelSpec, own: AutoscalingSettings) -> dict[str, Any]:
    """Return the spec of the model's ScaledObject.

    https://keda.sh/docs/latest/reference/scaledobject-spec/
    """
    fallback = {"failureThreshold": 3, "replicas": own.fallback_replicas}
    return {
        "scaleTargetRef": {"name": f"{settings.service_name}-predictor"},
        "minReplicaCount": settings.min_replicas,
        "maxReplicaCount": settings.max_replicas,
        "pollingInterval": own.polling_interval,
        "cooldownPeriod": own.cooldown_period,
        # A first pod that loads a large model is not taken away before it could answer.
        "initialCooldownPeriod": max(own.cooldown_period, settings.start_timeout_seconds),
        "triggers": [_trigger(settings, own, trigger) for trigger in own.triggers],
        **({"fallback": fallback} if own.fallback_replicas else {}),
    }


def _trigger(settings: ModelSpec, own: AutoscalingSettings, trigger: Trigger) -> dict[str, Any]:
    """Return one trigger; KEDA takes every value as text."""
    if trigger.type == "cron":
        metadata = {
            "timezone": str(trigger.timezone),
            "start": str(trigger.start),
            "end": str(trigger.end),
            "desiredReplicas": str(trigger.desired_replicas),
        }
        return {"type": "cron", "metadata": metadata, "metricType": _COUNT}
    query = trigger.query or VLLM_METRICS[trigger.type].format(pods=selector(settings))
    metadata = {
        "serverAddress": str(own.server_address),
        "query": query,
        "threshold": number_text(trigger.threshold or 0),
        **(
            {}
            if trigger.activation_threshold is None
            else {"activationThreshold": number_text(trigger.activation_threshold)}
        ),
    }
    kind = _METRIC_TYPES.get(trigger.type, _COUNT)
    return {"type": "prometheus", "metadata": metadata, "metricType": kind}
