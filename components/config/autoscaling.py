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
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field

from components.config.fields import Refused
from components.config.section import Section

#: vLLM's own metrics (0.23, vllm/v1/metrics/loggers.py) as PromQL, of the pods of one model. They come from
#: the pods, so that there are none while there is no pod.
VLLM_METRICS = {
    "requests": "sum(vllm:num_requests_running{{{pods}}}) + sum(vllm:num_requests_waiting{{{pods}}})",
    "requestsWaiting": "sum(vllm:num_requests_waiting{{{pods}}})",
    "kvCacheUse": "avg(vllm:kv_cache_usage_perc{{{pods}}})",
}
OF_PROMETHEUS = frozenset({*VLLM_METRICS, "prometheus"})

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
    threshold: requests (running and waiting), or waiting ones, that one pod is to have; of kvCacheUse the
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
    server_address: address of the Prometheus that the queries go to, as KEDA reaches it.
    polling_interval: seconds between two looks of KEDA at the triggers.
    cooldown_period: seconds from the last trigger that held until the last pod goes (minReplicas 0).
    fallback_replicas: pods while Prometheus does not answer; where not set there are as many as before. With
        a trigger kvCacheUse it needs KEDA 2.18 or newer.
    """

    triggers: Annotated[tuple[Trigger, ...], AfterValidator(_some)]
    server_address: Annotated[str, AfterValidator(_server)] | None = None
    polling_interval: int = Field(30, ge=1, le=3600)
    cooldown_period: int = Field(300, ge=0, le=86400)
    fallback_replicas: int | None = Field(None, ge=1, le=1000)
