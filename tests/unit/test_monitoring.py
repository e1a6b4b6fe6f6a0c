"""What Prometheus and Grafana are told of a model."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from components.config.settings import Settings
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
    assert found["ModelHasNoReadyPod"].expression == (
        'kube_deployment_spec_replicas{namespace="models",deployment="m-predictor"} > 0 and '
        'kube_deployment_status_replicas_available{namespace="models",deployment="m-predictor"} == 0'
    )
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


def test_knatives_pods_are_found_by_knatives_names() -> None:
    """Its port has another name than the container's, and it has a Deployment for each revision."""
    settings = load(serviceName="m", namespace="models", deploymentMode="Knative")
    [monitor, _] = monitoring.objects([settings], monitoring.OPERATOR)
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == "user-port"
    critical = next(one for one in monitoring.alerts(settings) if one.severity == "critical")
    for name, found in (
        ("m-predictor-00001-deployment", True),
        ("m-predictor-00012-deployment", True),
        ("m-predictor", False),
        ("m-predictor-x-predictor-00001-deployment", False),
    ):
        patterns = re.findall(r'deployment=~"([^"]+)"', critical.expression)
        assert [bool(re.fullmatch(pattern, name)) for pattern in patterns] == [found, found]
    # Prometheus compares series of equal labels: those of one revision, or all in one.
    assert critical.expression.count("sum by (namespace) (") == 2


def test_a_name_that_knative_hashes_is_refused() -> None:
    def of(length: int) -> Settings:
        return load(serviceName="m" * length, namespace="models", deploymentMode="Knative")

    assert monitoring.objects([of(36)], monitoring.OPERATOR)
    assert monitoring.dashboard(of(36))
    with pytest.raises(InputError, match="36 characters at most, with deploymentMode Knative"):
        monitoring.objects([of(37)], monitoring.OPERATOR)
    with pytest.raises(InputError, match="serviceName"):
        monitoring.dashboard(of(37))


def test_two_models_with_long_names_have_a_dashboard_each() -> None:
    """Grafana takes one of the same uid for the next version of the first."""
    space = "machine-learning-production"
    uids = [
        monitoring.dashboard(load(serviceName=name, namespace=space))["uid"]
        for name in ("qwen2-5-7b", "qwen2-5-72b")
    ]
    assert len(set(uids)) == 2
    assert all(len(uid) <= 40 for uid in uids)
    assert monitoring.dashboard(SETTINGS)["uid"] == "modelcar-models-m"


def test_two_models_whose_names_are_the_same_joined_have_a_dashboard_each() -> None:
    pairs = (("team", "a-chat"), ("team-a", "chat"), ("team", "chat"))
    uids = {monitoring.dashboard(load(serviceName=name, namespace=space))["uid"] for space, name in pairs}
    assert len(uids) == 3
    assert "modelcar-team-chat" in uids, "what can be no other's stays"
