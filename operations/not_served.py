"""Why no pod of a model serves, and whether that is a fault: for `validate` and `chat`."""

from __future__ import annotations

from collections.abc import Sequence

from components.cluster import workload
from components.cluster.access import JSON, Cluster, ClusterError
from components.cluster.failures import SEARCHED, cause
from components.cluster.pods import last_log, shown, why
from components.cluster.pull_failures import pull_cause
from components.cluster.room import lacks_gpus, why_no_room
from components.config.problems import NAMESPACE
from components.config.settings import Settings
from components.manifests import autoscaling
from components.manifests.service import CONTAINER
from operations.next_step import brought
from operations.validation_report import Line

SERVED = "served"


def not_served(cluster: Cluster, settings: Settings, pods: Sequence[JSON]) -> Line:
    """Return why none of these pods serves. What may not be read is told as such."""
    if not pods:
        return no_pod(cluster, settings)
    pod = pods[-1]
    log, unread = "", ""
    try:
        log = last_log(cluster, pod, CONTAINER, SEARCHED)
    except ClusterError as error:
        unread = f"; its log is not seen: {error}"
    state = why(cluster, pod)
    seen = f"{pod['metadata']['name']}: {state}{unread}"
    if known := why_no_room(cluster, settings, pod) if lacks_gpus(pod) else cause(log) or pull_cause(state):
        return Line(SERVED, False, f"{seen}; reason: {known.reason}", known.fix)
    if said := shown(log):
        seen += f"; its log ends: {' | '.join(said[-3:])}"
    return Line(SERVED, False, seen, "you need the right to read pods' logs" if unread else "see it")


def no_pod(cluster: Cluster, settings: Settings) -> Line:
    """Return why a model has no pod: nobody is to have one, nobody asks for one, or it is a fault."""
    seen = f"InferenceService {settings.namespace}/{settings.service_name} has no pod"
    if settings.idle:
        fix = brought(settings, "make wake STACK=…")
        return Line(SERVED, None, f"{seen}, as the stack says ({NAMESPACE}:idle)", fix)
    try:
        rests = _rests(cluster, settings)
    except ClusterError as error:
        what = "services (serving.knative.dev)" if _in_knative(settings) else "deployments (apps)"
        fix = f"you need the right to get {what} in {settings.namespace}"
        return Line(SERVED, None, f"{seen}; whether nothing asks for one is not seen: {error}", fix)
    if rests:
        by = "minReplicas 0" if _in_knative(settings) else "autoscaling"
        fix = "ask it something, as its users do, and look again"
        return Line(SERVED, None, f"{seen}, as nothing asks for one ({NAMESPACE}:{by})", fix)
    events = f"kubectl -n {settings.namespace} get events"
    return Line(SERVED, False, seen, f"{brought(settings)}; where that brings none: {events}")


def _rests(cluster: Cluster, settings: Settings) -> bool:
    """Tell whether a model is at no pod because nothing asks for one: by KEDA, or in Knative mode."""
    if settings.min_replicas:
        return False
    found = cluster.get(workload.path(settings))
    if found is None:
        return False
    if _in_knative(settings):
        conditions = (found.get("status") or {}).get("conditions") or []
        return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)
    return bool(autoscaling.of(settings)) and found["spec"].get("replicas", 1) == 0


def _in_knative(settings: Settings) -> bool:
    return settings.deployment_mode == "Knative"
