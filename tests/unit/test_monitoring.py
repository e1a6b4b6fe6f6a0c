"""What Prometheus and Grafana are told of a model."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from components.manifests.service import PORT_NAME, container, predictor
from modelcar.errors import InputError
from operations import monitoring
from tests.unit.test_components_settings import load

SETTINGS = load(serviceName="m", namespace="models", startTimeoutSeconds=1230)
PODS = '{namespace="models",pod=~"m-predictor-.*"}'


@pytest.mark.parametrize(
    ("kinds", "names"),
    [
        (monitoring.OPERATOR, ["PodMonitor", "PrometheusRule"]),
        (monitoring.GOOGLE, ["PodMonitoring", "Rules"]),
    ],
)
def test_each_prometheus_gets_objects_of_its_own(kinds: monitoring.Kinds, names: list[str]) -> None:
    [monitor, rules] = monitoring.objects([SETTINGS], kinds)
    assert [monitor["kind"], rules["kind"]] == names
    assert {monitor["apiVersion"], rules["apiVersion"]} == {kinds.group}
    for one in (monitor, rules):
        assert (one["metadata"]["name"], one["metadata"]["namespace"]) == ("m", "models")


def test_the_pods_own_port_is_asked() -> None:
    [monitor, _] = monitoring.objects([SETTINGS], monitoring.OPERATOR)
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == PORT_NAME
    assert PORT_NAME in {port["name"] for port in container(SETTINGS)["ports"]}
    selected = monitor["spec"]["selector"]["matchLabels"]
    assert selected == {"serving.kserve.io/inferenceservice": "m"}, "KServe's own label of a model's pods"
    assert predictor(SETTINGS, "oci://x/y@sha256:z")


def test_alerts_are_of_this_model_and_say_what_to_read() -> None:
    found = {alert.name: alert for alert in monitoring.alerts(SETTINGS)}
    assert found["ModelHasNoReadyPod"].minutes == 21, "as long as a start may take, in whole minutes"
    for alert in found.values():
        assert 'namespace="models"' in alert.expression
        assert alert.summary
    of_vllm = [alert for alert in found.values() if "vllm:" in alert.expression]
    assert len(of_vllm) == 4
    assert all(PODS in alert.expression for alert in of_vllm)


def test_a_model_of_another_server_has_other_metrics() -> None:
    with pytest.raises(InputError, match="modelcar:runtime: custom"):
        monitoring.objects([load(runtime="custom")], monitoring.OPERATOR)


def queries(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_the_dashboard_asks_for_this_models_metrics_only() -> None:
    found = monitoring.dashboard(SETTINGS)
    json.dumps(found)
    asked = queries(found)
    assert all(PODS in query for query in asked)
    names = {name for query in asked for name in re.findall(r"vllm:\w+", query)}
    assert names <= {f"vllm:{name}" for name in monitoring.metrics(SETTINGS)}
    places = [tuple(panel["gridPos"].values()) for panel in found["panels"]]
    assert len(set(places)) == len(places), "no panel lies on another"
