"""The service: its name, its replicas, how it changes, and where the storage URI goes."""

from __future__ import annotations

from collections.abc import Callable

from components.config.cluster import NOT_KNOWN
from components.config.fields import LONGEST_LABEL
from components.config.model_spec import ModelSpec
from components.config.problems import problem
from modelcar.errors import Problem


def hostname(settings: ModelSpec) -> Problem | None:
    """Return the problem of a service's host name; None of one whose namespace is not known yet."""
    # KServe names hosts `<name>-predictor-<namespace>`, each a DNS label (RFC 1123).
    label = f"{settings.service_name}-predictor-{settings.namespace}"
    if len(label) <= LONGEST_LABEL or settings.namespace == NOT_KNOWN:
        return None
    value = f"{settings.service_name} gives the host label {label} ({len(label)} characters)"
    return problem("serviceName", value, "63 characters at most", "shorten serviceName or namespace")


def _replicas(settings: ModelSpec) -> Problem | None:
    if settings.max_replicas < max(settings.min_replicas, 1):
        value = f"{settings.max_replicas}, below minReplicas {settings.min_replicas}"
        return problem("maxReplicas", value, "at least minReplicas", "raise maxReplicas or lower minReplicas")
    return None


def _rollout(settings: ModelSpec) -> Problem | None:
    if settings.rollout != "auto" and settings.deployment_mode != "Standard":
        value = (
            f"{settings.rollout} in deployment mode {settings.deployment_mode}, which has its own revisions"
        )
        return problem("rollout", value, "auto there", "remove modelcar:rollout")
    return None


def _canary(settings: ModelSpec) -> Problem | None:
    if settings.canary_traffic_percent is not None and settings.deployment_mode == "Standard":
        value = f"{settings.canary_traffic_percent} in deployment mode Standard, which splits no traffic"
        fix = "remove it; or set deploymentMode Knative on a new service; or split traffic between two stacks"
        return problem("canaryTrafficPercent", value, "0 to 100, in deploymentMode Knative", fix)
    return None


def _scale_to_zero(settings: ModelSpec) -> Problem | None:
    if settings.min_replicas == 0 and settings.deployment_mode == "Standard" and not settings.autoscaling:
        value = "0 in deployment mode Standard, where the HorizontalPodAutoscaler makes it 1"
        allowed = "1 or more, or deploymentMode Knative, or modelcar:autoscaling (KEDA)"
        return problem("minReplicas", value, allowed, "set minReplicas to 1, or say what asks for a pod")
    return None


def _storage_uris(settings: ModelSpec) -> Problem | None:
    if settings.placement == "storageUris" and settings.deployment_mode != "Standard":
        value = f"storageUris in deployment mode {settings.deployment_mode}"
        fix = "use servingRuntime, which works in every mode"
        return problem("placement", value, "servingRuntime or storageUriEnv there", fix)
    return None


#: All of them.
CHECKS: tuple[Callable[[ModelSpec], Problem | None], ...] = (
    hostname,
    _replicas,
    _rollout,
    _canary,
    _scale_to_zero,
    _storage_uris,
)
