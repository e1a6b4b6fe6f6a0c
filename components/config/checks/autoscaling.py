"""`modelcar:autoscaling`: what each trigger needs, and what does not go with the service's own settings."""

from __future__ import annotations

from collections.abc import Iterator

from components.config.autoscaling import OF_PROMETHEUS, VLLM_METRICS, AutoscalingSettings, Trigger
from components.config.model_spec import ModelSpec
from components.config.problems import problem
from components.config.quantities import number_text
from modelcar.errors import Problem

#: Fields of a trigger by what they are needed for; the others have to be left out.
_NEEDED = {
    **dict.fromkeys(VLLM_METRICS, frozenset({"threshold"})),
    "prometheus": frozenset({"query", "threshold"}),
    "cron": frozenset({"timezone", "start", "end", "desired_replicas"}),
}
_POSSIBLE = {**dict.fromkeys(OF_PROMETHEUS, frozenset({"activation_threshold"})), "cron": frozenset()}


def problems(settings: ModelSpec) -> list[Problem]:
    """Return what does not go together."""
    own = settings.autoscaling
    if own is None:
        return []
    found = [one for number, trigger in enumerate(own.triggers) for one in _of_trigger(number, trigger)]
    return [*found, *_of_all(settings, own)]


def _of_trigger(number: int, trigger: Trigger) -> Iterator[Problem]:
    fields = type(trigger).model_fields
    for name in sorted(fields.keys() - {"type"}):
        key = f"autoscaling.triggers[{number}].{fields[name].alias}"
        said, needed = getattr(trigger, name) is not None, name in _NEEDED[trigger.type]
        if needed and not said:
            fix = f"pulumi config set --path modelcar:{key} …"
            yield problem(key, "not set", f"a value, for type {trigger.type}", fix)
        elif said and not needed and name not in _POSSIBLE[trigger.type]:
            yield problem(key, getattr(trigger, name), f"nothing, for type {trigger.type}", "remove it")
    if trigger.type == "cron" and trigger.start is not None and trigger.start == trigger.end:
        key = f"autoscaling.triggers[{number}].end"
        fix = "set the end of the time in which there are pods"
        yield problem(key, f"{trigger.end}, as start", "another time than start: KEDA refuses it", fix)
    if trigger.type == "kvCacheUse" and trigger.threshold is not None and trigger.threshold > 1:
        key = f"autoscaling.triggers[{number}].threshold"
        fix = f"did you mean {number_text(trigger.threshold / 100)}?"
        yield problem(key, trigger.threshold, "a share of the cache, above 0 and at most 1", fix)


def _of_all(settings: ModelSpec, own: AutoscalingSettings) -> Iterator[Problem]:
    key = "autoscaling"
    if settings.deployment_mode != "Standard":
        value = f"set, in deployment mode {settings.deployment_mode}, which has an autoscaler of its own"
        yield problem(key, value, "Standard", "remove it; minReplicas 0 is all that Knative needs")
    if settings.min_replicas == settings.max_replicas:
        value = f"set, with minReplicas and maxReplicas {settings.max_replicas}: there is nothing to scale"
        yield problem(
            key, value, "minReplicas below maxReplicas", "lower minReplicas, to 0 even, or raise maxReplicas"
        )
    queries = [trigger.type for trigger in own.triggers if trigger.type in OF_PROMETHEUS]
    if queries and own.server_address is None:
        fix = f"pulumi config set --path modelcar:{key}.serverAddress http://prometheus.monitoring:9090"
        yield problem(f"{key}.serverAddress", "not set", f"the Prometheus that has the {queries[0]}", fix)
    if settings.min_replicas == 0 and all(trigger.type in VLLM_METRICS for trigger in own.triggers):
        value = f"{', '.join(trigger.type for trigger in own.triggers)}, with minReplicas 0"
        fix = "add one of type prometheus, of the gateway's metrics, or of type cron; or set minReplicas to 1"
        allowed = "a trigger that holds without a pod: vLLM's own metrics come from the pods"
        yield problem(f"{key}.triggers", value, allowed, fix)
    if settings.runtime != "vllm" and any(trigger.type in VLLM_METRICS for trigger in own.triggers):
        value = f"a metric of vLLM, with runtime {settings.runtime}"
        yield problem(
            f"{key}.triggers", value, "prometheus or cron there", "write the query, as type prometheus"
        )
    for number, trigger in enumerate(own.triggers):
        if (trigger.desired_replicas or 0) > settings.max_replicas:
            value = f"{trigger.desired_replicas}, above maxReplicas {settings.max_replicas}"
            fix = "raise maxReplicas, or lower it"
            yield problem(f"{key}.triggers[{number}].desiredReplicas", value, "at most maxReplicas", fix)
    if (own.fallback_replicas or 0) > settings.max_replicas:
        value = f"{own.fallback_replicas}, above maxReplicas {settings.max_replicas}"
        yield problem(
            f"{key}.fallbackReplicas", value, "at most maxReplicas", "raise maxReplicas, or lower it"
        )
