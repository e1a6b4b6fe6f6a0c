"""What a Prometheus is told of the stack's models, and what a person looks at.

`python -m operations monitoring`: a PodMonitor (Prometheus' operator) or a PodMonitoring (Google Cloud's
managed Prometheus) that collects vLLM's metrics, alert rules, and a dashboard for Grafana. Nothing of it is
declared by the stack: whoever runs the monitoring applies it.

Metrics: vLLM 0.23, vllm/v1/metrics/loggers.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from components.config.fitted import fitted
from components.config.problems import NAMESPACE
from components.config.settings import Settings
from components.manifests.autoscaling import selector
from components.manifests.network import SERVICE_LABEL
from components.manifests.service import PORT_NAME
from modelcar.errors import refuse

#: Seconds between two collections.
INTERVAL = 15
#: Knative's name for the server's port, whatever its container calls it (knative/serving,
#: pkg/apis/serving/v1/revision_types.go).
KNATIVE_PORT = "user-port"
#: Characters of a service's name up to which Knative's Deployments begin with it; their name is
#: `NAME-predictor-00001-deployment`, and has a hash in it where that is longer than 63.
LONGEST_KNATIVE = 63 - len("-predictor-00001-deployment")
#: Characters of a dashboard's uid that Grafana takes.
LONGEST_UID = 40


@dataclass(frozen=True)
class Kinds:
    """What the objects of one Prometheus are called."""

    group: str
    monitor: str
    endpoints: str
    rules: str


OPERATOR = Kinds("monitoring.coreos.com/v1", "PodMonitor", "podMetricsEndpoints", "PrometheusRule")
GOOGLE = Kinds("monitoring.googleapis.com/v1", "PodMonitoring", "endpoints", "Rules")


@dataclass(frozen=True)
class Alert:
    """summary: what somebody who is woken reads. page: of the documentation that says what to do."""

    name: str
    expression: str
    minutes: int
    severity: str
    summary: str
    page: str


def metrics(settings: Settings) -> dict[str, str]:
    """Return the metrics that rules and dashboard use, as PromQL selectors of the model's pods, by name."""
    names = (
        "num_requests_running",
        "num_requests_waiting",
        "kv_cache_usage_perc",
        "num_preemptions_total",
        "prompt_tokens_total",
        "generation_tokens_total",
        "request_success_total",
        "time_to_first_token_seconds_bucket",
        "inter_token_latency_seconds_bucket",
        "e2e_request_latency_seconds_bucket",
    )
    return {name: f"vllm:{name}{{{selector(settings)}}}" for name in names}


def objects(models: Sequence[Settings], kinds: Kinds) -> list[dict[str, Any]]:
    """Return what collects the models' metrics, and their alert rules.

    Raises:
        InputError: a model is not served by vLLM, or its pods cannot be told by their names.
    """
    for settings in models:
        _require_plain_names(settings)
        if settings.runtime != "vllm":
            raise refuse(
                f"{NAMESPACE}:runtime",
                f"{settings.runtime}, of {settings.key}",
                allowed="vllm: the rules are of its metrics",
                fix="name a model that vLLM serves (--model), or write rules of your server's metrics",
            )
    return [one for settings in models for one in (_monitor(settings, kinds), _rules(settings, kinds))]


def _require_plain_names(settings: Settings) -> None:
    if settings.deployment_mode == "Knative" and len(settings.service_name) > LONGEST_KNATIVE:
        raise refuse(
            f"{NAMESPACE}:serviceName",
            f"{settings.service_name}, of whose name Knative makes a hash in those of its pods",
            allowed=f"{LONGEST_KNATIVE} characters at most, with deploymentMode Knative",
            fix="write rules of your own, which select the pods by another label; or shorten serviceName, "
            "which makes a new service",
        )


def _monitor(settings: Settings, kinds: Kinds) -> dict[str, Any]:
    port = KNATIVE_PORT if settings.deployment_mode == "Knative" else PORT_NAME
    endpoint = {"port": port, "path": "/metrics", "interval": f"{INTERVAL}s"}
    selected = {"matchLabels": {SERVICE_LABEL: settings.service_name}}
    return _object(settings, kinds, kinds.monitor, {"selector": selected, kinds.endpoints: [endpoint]})


def _rules(settings: Settings, kinds: Kinds) -> dict[str, Any]:
    rules = [
        {
            "alert": alert.name,
            "expr": alert.expression,
            "for": f"{alert.minutes}m",
            "labels": {"severity": alert.severity, "model": settings.model_name},
            "annotations": {"summary": alert.summary, "runbook": alert.page},
        }
        for alert in alerts(settings)
    ]
    group = {"name": f"modelcar-{settings.service_name}", "interval": "30s", "rules": rules}
    return _object(settings, kinds, kinds.rules, {"groups": [group]})


def _object(settings: Settings, kinds: Kinds, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {
        "name": settings.service_name,
        "namespace": settings.namespace,
        "labels": {
            "app.kubernetes.io/name": settings.service_name,
            "app.kubernetes.io/managed-by": "modelcar",
        },
    }
    return {"apiVersion": kinds.group, "kind": kind, "metadata": metadata, "spec": spec}


def alerts(settings: Settings) -> list[Alert]:
    """Return the alerts of one model: that it does not answer, or that it answers late."""
    found, name = metrics(settings), settings.model_name
    wanted, available = _pods(settings, "spec_replicas"), _pods(settings, "status_replicas_available")
    start = -(-settings.start_timeout_seconds // 60)
    late = _quantile(0.95, found["time_to_first_token_seconds_bucket"])
    return [
        Alert(
            "ModelHasNoReadyPod",
            f"{wanted} > 0 and {available} == 0",
            start,
            "critical",
            f"{name} is to have pods, and none is ready for {start} minutes (startTimeoutSeconds)",
            "docs/troubleshooting.md",
        ),
        Alert(
            "ModelRequestsWait",
            f"avg({found['num_requests_waiting']}) > 10",
            5,
            "warning",
            f"more than 10 requests of each pod of {name} wait for their turn",
            "docs/operations/autoscaling.md",
        ),
        Alert(
            "ModelAnswersLate",
            f"{late} > 10",
            10,
            "warning",
            f"one of twenty requests to {name} waits for its first token for more than 10 s",
            "docs/operations/autoscaling.md",
        ),
        Alert(
            "ModelCacheIsFull",
            f"avg({found['kv_cache_usage_perc']}) > 0.95",
            10,
            "warning",
            f"the KV cache of {name} is full: requests wait, or are put off and computed again",
            "docs/operations/autoscaling.md",
        ),
        Alert(
            "ModelPutsRequestsOff",
            f"sum(rate({found['num_preemptions_total']}[5m])) > 0.1",
            10,
            "warning",
            f"{name} puts requests off that it has begun, for want of KV cache",
            "docs/operations/autoscaling.md",
        ),
    ]


def _pods(settings: Settings, metric: str) -> str:
    """Return a number of the model's pods, as kube-state-metrics tells it of Deployments.

    Knative has a Deployment for each revision, of which one that gets no requests is to have no pod.
    """
    own = f"{settings.service_name}-predictor"
    name, space = f"kube_deployment_{metric}", f'namespace="{settings.namespace}"'
    if settings.deployment_mode == "Knative":
        return f'sum by (namespace) ({name}{{{space},deployment=~"{own}-[0-9]+-deployment"}})'
    return f'{name}{{{space},deployment="{own}"}}'


def dashboard(settings: Settings) -> dict[str, Any]:
    """Return a dashboard for Grafana 10 and newer: import it, and choose the data source.

    Raises:
        InputError: the model's pods cannot be told by their names.
    """
    _require_plain_names(settings)
    found = metrics(settings)
    names = (settings.namespace, settings.service_name)
    # With `-` in either, a and b-c would be as a-b and c; none of them has a `_`.
    uid = f"modelcar-{('_' if '-' in ''.join(names) else '-').join(names)}"
    rate = {name: f"sum(rate({found[name]}[5m]))" for name in found if name.endswith("_total")}
    panels: list[tuple[str, str, dict[str, str]]] = [
        (
            "Requests",
            "short",
            {
                "running": f"sum({found['num_requests_running']})",
                "waiting": f"sum({found['num_requests_waiting']})",
            },
        ),
        ("KV cache", "percentunit", {"{{pod}}": found["kv_cache_usage_perc"]}),
        ("Time to first token", "s", _quantiles(found["time_to_first_token_seconds_bucket"])),
        ("Time between tokens", "s", _quantiles(found["inter_token_latency_seconds_bucket"])),
        ("Time of a request", "s", _quantiles(found["e2e_request_latency_seconds_bucket"])),
        (
            "Tokens",
            "short",
            {"asked, per s": rate["prompt_tokens_total"], "answered, per s": rate["generation_tokens_total"]},
        ),
        (
            "Requests that ended, per s",
            "reqps",
            {
                "{{finished_reason}}": (
                    f"sum by (finished_reason) (rate({found['request_success_total']}[5m]))"
                )
            },
        ),
        ("Requests put off, per s", "reqps", {"put off": rate["num_preemptions_total"]}),
    ]
    return {
        "title": f"Model {settings.model_name}",
        "uid": fitted(uid, LONGEST_UID, uid, exact=True),
        "tags": ["modelcar"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
        },
        "panels": [_panel(number, *panel) for number, panel in enumerate(panels)],
    }


def _panel(number: int, title: str, unit: str, queries: dict[str, str]) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${source}"}
    targets = [
        {"refId": chr(65 + place), "expr": query, "legendFormat": legend, "datasource": source}
        for place, (legend, query) in enumerate(queries.items())
    ]
    return {
        "id": number + 1,
        "title": title,
        "type": "timeseries",
        "datasource": source,
        "gridPos": {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": targets,
    }


def _quantile(share: float, bucket: str) -> str:
    return f"histogram_quantile({share}, sum by (le) (rate({bucket}[5m])))"


def _quantiles(bucket: str) -> dict[str, str]:
    return {f"{share:.0%} of requests": _quantile(share, bucket) for share in (0.5, 0.95, 0.99)}
