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
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field

from components.config.fields import Refused, matches
from components.config.section import Section

#: vLLM's own metrics (0.23, vllm/v1/metrics/loggers.py) as PromQL, of the pods of one model. They come from
#: the pods, so that there are none while there is no pod.
VLLM_METRICS = {
    "requests": "sum(vllm:num_requests_running{{{pods}}}) + sum(vllm:num_requests_waiting{{{pods}}})",
    "requestsWaiting": "sum(vllm:num_requests_waiting{{{pods}}})",
    "kvCacheUse": "avg(vllm:kv_cache_usage_perc{{{pods}}})",
}
OF_PROMETHEUS = frozenset({*VLLM_METRICS, "prometheus"})

#: Fields of a cron expression as KEDA's parser has them (github.com/robfig/cron/v3, parser.go and spec.go):
#: the least and the greatest number, and the names that stand for numbers.
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_CRON_FIELDS: dict[str, tuple[int, int, dict[str, int]]] = {
    "minute": (0, 59, {}),
    "hour": (0, 23, {}),
    "day of the month": (1, 31, {}),
    "month": (1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    "day of the week": (0, 6, {name: number for number, name in enumerate(_DAYS)}),
}
_CRON_PART = re.compile(
    r"(?:(?P<all>[*?])|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>[0-9]{1,4}))?", re.A
)


def _cron(text: str) -> str:
    allowed = f"{', '.join(_CRON_FIELDS)}, such as 0 8 * * 1-5"
    parts = text.split(" ")
    if len(parts) != len(_CRON_FIELDS):
        raise Refused("not a cron expression", allowed, "write five fields, with one space between")
    for part, (name, (least, greatest, names)) in zip(parts, _CRON_FIELDS.items(), strict=True):
        pieces = [one for one in part.split(",") if one]  # the parser passes over empty ones
        if not pieces or not all(_in_range(one, least, greatest, names) for one in pieces):
            also = f", or {next(iter(names))} to {list(names)[-1]}" if names else ""
            fix = f"{name}: use {least} to {greatest}{also}; *, ranges (1-5), lists (1,3) and steps (*/2)"
            raise Refused(f"{part!r} is no {name}", allowed, fix)
    return text


def _in_range(part: str, least: int, greatest: int, names: Mapping[str, int]) -> bool:
    found = _CRON_PART.fullmatch(part)
    if not found or (found["step"] and int(found["step"]) == 0):
        return False
    if found["all"]:
        return True

    def number(text: str) -> int:
        return int(text) if text.isdecimal() and len(text) < 5 else names.get(text.lower(), -1)

    first = number(found["first"])
    last = number(found["last"]) if found["last"] else first
    return least <= first <= last <= greatest


#: Names in Python's list of time zones that KEDA does not know, or that mean none.
_NO_TIMEZONES = frozenset({"localtime", "posixrules", "Factory"})


def _timezone(text: str) -> str:
    if text not in available_timezones() - _NO_TIMEZONES:
        fix = "take the name from https://en.wikipedia.org/wiki/List_of_tz_database_time_zones"
        raise Refused("not a time zone", "a name of the IANA database, such as Europe/Berlin", fix)
    return text


def _server(text: str) -> str:
    try:
        url = urlsplit(text)
        port = url.port  # raises where it is none
    except ValueError:
        url, port = urlsplit(""), 0
    wrong = url.username or url.query or url.fragment or port == 0 or re.search(r"[\s\x00-\x1f\x7f]", text)
    if url.scheme not in {"http", "https"} or not url.hostname or wrong:
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
_Query = Annotated[
    str,
    matches(
        re.compile(r"(?s).*\S.*"),
        "no query",
        "PromQL that gives one number",
        "write it as the Prometheus takes it",
    ),
]


class Trigger(Section):
    """One reason for pods; where several speak, the largest number counts.

    type: requests, requestsWaiting or kvCacheUse (vLLM's own metrics, which need a pod to come from),
        prometheus (any query) or cron.
    threshold: requests (running and waiting), or waiting ones, that one pod is to have; of kvCacheUse the
        share of the cache, 0.8 for 80 %; of prometheus what the query's value is divided by.
    activation_threshold: above which the first pod comes, where there is none; 0 where not set.
    query: PromQL that gives one number (prometheus).
    timezone: of start and end (cron), as the IANA names it: Europe/Berlin.
    start: when a cron trigger begins to hold, as a cron expression: five fields, with Sunday as 0.
    end: when it no longer holds, as a cron expression that differs from start.
    desired_replicas: pods while a cron trigger holds.
    """

    type: Literal["requests", "requestsWaiting", "kvCacheUse", "prometheus", "cron"]
    threshold: float | None = Field(None, gt=0, allow_inf_nan=False)
    activation_threshold: float | None = Field(None, ge=0, allow_inf_nan=False)
    query: _Query | None = None
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
    fallback_replicas: pods while Prometheus does not answer; where not set there are as many as before.
        Triggers of type cron need none; with a trigger kvCacheUse it needs KEDA 2.18 or newer.
    """

    triggers: Annotated[tuple[Trigger, ...], AfterValidator(_some)]
    server_address: Annotated[str, AfterValidator(_server)] | None = None
    polling_interval: int = Field(30, ge=1, le=3600)
    cooldown_period: int = Field(300, ge=0, le=86400)
    fallback_replicas: int | None = Field(None, ge=1, le=1000)
