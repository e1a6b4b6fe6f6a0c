"""`modelcar:autoscaling`: how many pods a model has, by KEDA (Standard mode).

KServe's own way to KEDA (`autoscalerClass: keda`, 0.19) makes a ScaledObject without a cooldown period,
without an activation threshold and without triggers of other kinds than Prometheus; and one that is there at
once, so that KEDA takes the first pod away while a large model still loads. So KServe is told that the
autoscaler is somebody else's (`external`), and this program declares the ScaledObject, after the model has
served once.
docs/decisions/0010-keda-by-our-own-scaled-object.md
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import available_timezones

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource
from pydantic import AfterValidator, Field

from components.checks import problem
from components.fields import Refused
from components.google.settings import Section
from components.options import OWNED, child
from modelcar.errors import Problem

if TYPE_CHECKING:
    from components.settings import Settings

#: What `serving.kserve.io/autoscalerClass` says where the number of pods is not KServe's affair.
EXTERNAL = "external"
API_VERSION, KIND = "keda.sh/v1alpha1", "ScaledObject"

#: vLLM's own metrics (0.23, vllm/v1/metrics/loggers.py) as PromQL, of the pods of one model. They come from
#: the pods, so that there are none while there is no pod.
_OF_VLLM = {
    "requests": "sum(vllm:num_requests_running{{{pods}}}) + sum(vllm:num_requests_waiting{{{pods}}})",
    "requestsWaiting": "sum(vllm:num_requests_waiting{{{pods}}})",
    "kvCacheUse": "avg(vllm:kv_cache_usage_perc{{{pods}}})",
}
#: A share is compared as it is; a count is divided by the number of pods.
_METRIC_TYPES = {"kvCacheUse": "Value"}
_OF_PROMETHEUS = frozenset({*_OF_VLLM, "prometheus"})

#: Fields of a trigger by what they are needed for; the others have to be left out.
_NEEDED = {
    **dict.fromkeys(_OF_VLLM, frozenset({"threshold"})),
    "prometheus": frozenset({"query", "threshold"}),
    "cron": frozenset({"timezone", "start", "end", "desired_replicas"}),
}
_POSSIBLE = {**dict.fromkeys(_OF_PROMETHEUS, frozenset({"activation_threshold"})), "cron": frozenset()}

_CRON_FIELD = r"[0-9*/,A-Za-z-]+"
_CRON = re.compile(rf"{_CRON_FIELD}( {_CRON_FIELD}){{4}}")


def _cron(text: str) -> str:
    if not _CRON.fullmatch(text):
        allowed = "minute, hour, day of the month, month, day of the week, such as 0 8 * * 1-5"
        raise Refused("not a cron expression", allowed, "write five fields, with one space between")
    return text


def _timezone(text: str) -> str:
    if text not in available_timezones():
        fix = "take the name from https://en.wikipedia.org/wiki/List_of_tz_database_time_zones"
        raise Refused("not a time zone", "a name of the IANA database, such as Europe/Berlin", fix)
    return text


def _server(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in {"http", "https"} or not url.hostname or url.username or url.query or url.fragment:
        allowed = "http(s)://HOST[:PORT][/PATH], as KEDA's own pods reach it"
        raise Refused(
            "not the address of a Prometheus", allowed, "for example http://prometheus.monitoring:9090"
        )
    return text.rstrip("/")


def _some(triggers: tuple[Any, ...]) -> tuple[Any, ...]:
    if not triggers:
        raise Refused(
            "nothing asks for a pod", "one trigger or more", "add one, or remove modelcar:autoscaling"
        )
    return triggers


_Cron = Annotated[str, AfterValidator(_cron)]


class Trigger(Section):
    """One reason for pods; where several speak, the largest number counts.

    type: requests, requestsWaiting or kvCacheUse (vLLM's own metrics, which need a pod to come from),
        prometheus (any query) or cron.
    threshold: of requests (running and waiting) or waiting ones that one pod is to have; of kvCacheUse the
        share of the cache, 0.8 for 80 %; of prometheus what the query's value is divided by.
    activation_threshold: above which the first pod comes, where there is none; 0 where not set.
    query: PromQL that gives one number (prometheus).
    timezone, start, end: when a cron trigger holds, as cron expressions in an IANA time zone.
    desired_replicas: pods while a cron trigger holds.
    """

    type: Literal["requests", "requestsWaiting", "kvCacheUse", "prometheus", "cron"]
    threshold: float | None = Field(None, gt=0)
    activation_threshold: float | None = Field(None, ge=0)
    query: str | None = Field(None, min_length=1)
    timezone: Annotated[str, AfterValidator(_timezone)] | None = None
    start: _Cron | None = None
    end: _Cron | None = None
    desired_replicas: int | None = Field(None, ge=1, le=1000)


class AutoscalingSettings(Section):
    """`modelcar:autoscaling`: between minReplicas, which may be 0, and maxReplicas.

    triggers: what asks for pods; at least one.
    server_address: of the Prometheus that the queries go to, as KEDA reaches it.
    polling_interval: seconds between two looks of KEDA at the triggers.
    cooldown_period: seconds from the last trigger that held until the last pod goes (minReplicas 0).
    fallback_replicas: pods while Prometheus does not answer; where not set there are as many as before.
    """

    triggers: Annotated[tuple[Trigger, ...], AfterValidator(_some)]
    server_address: Annotated[str, AfterValidator(_server)] | None = None
    polling_interval: int = Field(30, ge=1, le=3600)
    cooldown_period: int = Field(300, ge=0, le=86400)
    fallback_replicas: int | None = Field(None, ge=1, le=1000)


def problems(settings: Settings) -> list[Problem]:
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
    if trigger.type == "kvCacheUse" and trigger.threshold is not None and trigger.threshold > 1:
        key = f"autoscaling.triggers[{number}].threshold"
        fix = f"did you mean {trigger.threshold / 100:g}?"
        yield problem(key, trigger.threshold, "a share of the cache, above 0 and at most 1", fix)


def _of_all(settings: Settings, own: AutoscalingSettings) -> Iterator[Problem]:
    key = "autoscaling"
    if settings.deployment_mode != "Standard":
        value = f"set, in deployment mode {settings.deployment_mode}, which has an autoscaler of its own"
        yield problem(key, value, "Standard", "remove it; minReplicas 0 is all that Knative needs")
    if settings.min_replicas == settings.max_replicas:
        value = f"set, with minReplicas and maxReplicas {settings.max_replicas}: there is nothing to scale"
        yield problem(
            key, value, "minReplicas below maxReplicas", "lower minReplicas, to 0 even, or raise maxReplicas"
        )
    queries = [trigger.type for trigger in own.triggers if trigger.type in _OF_PROMETHEUS]
    if queries and own.server_address is None:
        fix = f"pulumi config set --path modelcar:{key}.serverAddress http://prometheus.monitoring:9090"
        yield problem(f"{key}.serverAddress", "not set", f"the Prometheus that has the {queries[0]}", fix)
    if settings.min_replicas == 0 and all(trigger.type in _OF_VLLM for trigger in own.triggers):
        value = f"{', '.join(trigger.type for trigger in own.triggers)}, with minReplicas 0"
        fix = "add one of type prometheus, of the gateway's metrics, or of type cron; or set minReplicas to 1"
        allowed = "a trigger that holds without a pod: vLLM's own metrics come from the pods"
        yield problem(f"{key}.triggers", value, allowed, fix)
    if settings.runtime != "vllm" and any(trigger.type in _OF_VLLM for trigger in own.triggers):
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


def of(settings: Settings) -> AutoscalingSettings | None:
    """Return by what KEDA keeps the number of pods; None where it does not."""
    return None if settings.idle else settings.autoscaling


def selector(settings: Settings) -> str:
    """Return PromQL's labels of the model's pods, as Prometheus' operator and GKE's set them."""
    pods = f"{settings.service_name}-predictor-.*"
    return f'namespace="{settings.namespace}",pod=~"{pods}"'


def scaled_object(settings: Settings, own: AutoscalingSettings) -> dict[str, Any]:
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


def _trigger(settings: Settings, own: AutoscalingSettings, trigger: Trigger) -> dict[str, Any]:
    """Return one trigger; KEDA takes every value as text."""
    if trigger.type == "cron":
        metadata = {
            "timezone": str(trigger.timezone),
            "start": str(trigger.start),
            "end": str(trigger.end),
            "desiredReplicas": str(trigger.desired_replicas),
        }
        return {"type": "cron", "metadata": metadata}
    query = trigger.query or _OF_VLLM[trigger.type].format(pods=selector(settings))
    metadata = {
        "serverAddress": str(own.server_address),
        "query": query,
        "threshold": f"{trigger.threshold:g}",
        **(
            {}
            if trigger.activation_threshold is None
            else {"activationThreshold": f"{trigger.activation_threshold:g}"}
        ),
    }
    kind = _METRIC_TYPES.get(trigger.type)
    return {"type": "prometheus", "metadata": metadata, **({"metricType": kind} if kind else {})}


@dataclass(frozen=True)
class AutoscalerArgs:
    """settings: of the model. scaling: its own. hooks: of the object, `components.guard.guarded`."""

    settings: Settings
    scaling: AutoscalingSettings
    hooks: pulumi.ResourceHookBinding | None = None


class Autoscaler(pulumi.ComponentResource):
    """A ScaledObject (keda.sh/v1alpha1) for the Deployment that KServe makes of an InferenceService.

    Outputs:
        name: of the ScaledObject.
    """

    name: pulumi.Output[str]

    def __init__(self, name: str, args: AutoscalerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare it."""
        super().__init__("modelcar:kserve:Autoscaler", name, None, opts)
        settings = args.settings
        scaled = CustomResource(
            name,
            api_version=API_VERSION,
            kind=KIND,
            metadata={
                "name": settings.service_name,
                "namespace": settings.namespace,
                "annotations": OWNED,
            },
            spec=scaled_object(settings, args.scaling),
            opts=pulumi.ResourceOptions.merge(child(self, opts), pulumi.ResourceOptions(hooks=args.hooks)),
        )
        self.name = scaled.urn.apply(lambda _: settings.service_name)
        self.register_outputs({"name": self.name})
