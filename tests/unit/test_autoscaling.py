"""How many pods a model has by KEDA: what may be said, what is declared, and when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi.runtime.proto import resource_pb2

from components.cluster import existing, keda
from components.cluster.access import ClusterError
from components.engine.options import OWNED
from components.image.existing_image import Existing
from components.manifests import autoscaling
from components.manifests.gitops import manifests
from components.manifests.service import AUTOSCALER, service_annotations
from components.stack import delivery, outcomes
from components.stack.delivery import Destination
from components.stack.model import Model, ModelArgs
from modelcar.base import read_base
from modelcar.errors import InputError
from tests.unit import mocked_engine
from tests.unit.fake_cluster import FakeCluster
from tests.unit.mocked_engine import DIGEST, Engine
from tests.unit.test_components_models import load as list_of
from tests.unit.test_components_settings import load, problems
from tests.unit.test_operations_gitops import project, settings

__all__ = ["project"]

PROMETHEUS = "http://prometheus.monitoring:9090"
GATEWAY = {"type": "prometheus", "query": "sum(gateway_pending)", "threshold": 5}
BY_DAY = {
    "type": "cron",
    "timezone": "Europe/Berlin",
    "start": "0 8 * * 1-5",
    "end": "0 18 * * 1-5",
    "desiredReplicas": 2,
}


def scaled(*triggers: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Settings of a stack whose model scales from none to four pods."""
    own = {"serverAddress": PROMETHEUS, "triggers": list(triggers)} | more
    return {"minReplicas": 0, "maxReplicas": 4, "autoscaling": own}


def spec(**changes: Any) -> dict[str, Any]:
    told = load(serviceName="m", namespace="models", **changes)
    own = autoscaling.of(told)
    assert own is not None
    return autoscaling.scaled_object(told, own)


# --- what it may say


def test_a_model_may_have_no_pod_where_something_asks_for_one() -> None:
    [refused] = problems(minReplicas=0)
    assert "modelcar:autoscaling (KEDA)" in refused.allowed
    assert load(**scaled(GATEWAY)).min_replicas == 0
    assert load(**scaled(BY_DAY, serverAddress=None)).autoscaling


@pytest.mark.parametrize(
    ("changes", "key", "fix"),
    [
        (scaled({"type": "requests", "threshold": 8}), "autoscaling.triggers", "minReplicas to 1"),
        (
            scaled({"type": "prometheus", "threshold": 8}),
            "autoscaling.triggers[0].query",
            "config set --path",
        ),
        (scaled({**BY_DAY, "threshold": 8}), "autoscaling.triggers[0].threshold", "remove it"),
        (scaled({**BY_DAY, "start": "8 o'clock"}), "autoscaling.triggers[0].start", "five fields"),
        (scaled({**BY_DAY, "start": ", 8 * * *"}), "autoscaling.triggers[0].start", "minute: use 0 to 59"),
        (scaled({**BY_DAY, "start": "0 8 ,, * *"}), "autoscaling.triggers[0].start", "month: use 1 to 31"),
        (scaled({**BY_DAY, "start": "99 9 * * *"}), "autoscaling.triggers[0].start", "minute: use 0 to 59"),
        (scaled({**BY_DAY, "start": "0 24 * * *"}), "autoscaling.triggers[0].start", "hour: use 0 to 23"),
        (scaled({**BY_DAY, "start": "0 9 0 * *"}), "autoscaling.triggers[0].start", "month: use 1 to 31"),
        (scaled({**BY_DAY, "start": "0 9 * mai *"}), "autoscaling.triggers[0].start", "jan to dec"),
        (scaled({**BY_DAY, "end": "0 9 * * 7"}), "autoscaling.triggers[0].end", "0 to 6, or sun to sat"),
        (scaled({**BY_DAY, "end": "*/0 * * * *"}), "autoscaling.triggers[0].end", "minute: use 0 to 59"),
        (scaled({**BY_DAY, "end": "0 9-8 * * *"}), "autoscaling.triggers[0].end", "hour: use 0 to 23"),
        (scaled({**BY_DAY, "end": BY_DAY["start"]}), "autoscaling.triggers[0].end", "set the end"),
        (scaled({**BY_DAY, "timezone": "localtime"}), "autoscaling.triggers[0].timezone", "tz_database"),
        (scaled({**BY_DAY, "timezone": "Factory"}), "autoscaling.triggers[0].timezone", "tz_database"),
        (scaled({**GATEWAY, "threshold": float("inf")}), "autoscaling.triggers[0].threshold", ""),
        (scaled({**GATEWAY, "query": "  "}), "autoscaling.triggers[0].query", "as the Prometheus takes it"),
        (scaled(GATEWAY, serverAddress="http://p:99999"), "autoscaling.serverAddress", "http://"),
        (scaled(GATEWAY, serverAddress="http://p:abc"), "autoscaling.serverAddress", "http://"),
        (scaled(GATEWAY, serverAddress="http://a b:9"), "autoscaling.serverAddress", "http://"),
        (scaled(GATEWAY, serverAddress="http://p\n:9"), "autoscaling.serverAddress", "http://"),
        (scaled(GATEWAY, serverAddress="http://[::1"), "autoscaling.serverAddress", "http://"),
        (scaled({**BY_DAY, "timezone": "Berlin"}), "autoscaling.triggers[0].timezone", "tz_database"),
        (scaled({**BY_DAY, "desiredReplicas": 5}), "autoscaling.triggers[0].desiredReplicas", "maxReplicas"),
        (
            scaled(GATEWAY, {"type": "kvCacheUse", "threshold": 80}),
            "autoscaling.triggers[1].threshold",
            "0.8?",
        ),
        (scaled({**GATEWAY, "threshold": 0}), "autoscaling.triggers[0].threshold", ""),
        (scaled({**GATEWAY, "type": "kafka"}), "autoscaling.triggers[0].type", ""),
        (scaled({**GATEWAY, "tresholt": 1}), "autoscaling.triggers[0].tresholt", "did you mean threshold?"),
        (scaled(), "autoscaling.triggers", "add one"),
        (scaled(GATEWAY, serverAddress=None), "autoscaling.serverAddress", "prometheus.monitoring"),
        (scaled(GATEWAY, serverAddress="prometheus:9090"), "autoscaling.serverAddress", "http://"),
        (scaled(GATEWAY, serverAddress="http://u:p@h"), "autoscaling.serverAddress", "http://"),
        (scaled(GATEWAY, fallbackReplicas=9), "autoscaling.fallbackReplicas", "maxReplicas"),
        (scaled(GATEWAY) | {"minReplicas": 4}, "autoscaling", "lower minReplicas"),
        (scaled(GATEWAY) | {"deploymentMode": "Knative"}, "autoscaling", "remove it"),
        (
            scaled(GATEWAY, {"type": "requests", "threshold": 8}) | {"runtime": "custom"},
            "autoscaling.triggers",
            "as type prometheus",
        ),
    ],
)
def test_what_cannot_work_is_told_with_the_fix(changes: dict[str, Any], key: str, fix: str) -> None:
    [found] = problems(**changes)
    assert found.key == f"modelcar:{key}"
    assert fix in found.fix


@pytest.mark.parametrize(
    "start",
    [
        "*/15 0-6,22 1,15 JAN-mar,12 Mon-Fri",
        "5/10 ? ? * 0",
        "0 8 * * sat,sun",
        "00 08 31 12 6",
        "1,,3 8 * * ,5",
    ],
)
def test_times_are_written_as_keda_reads_them(start: str) -> None:
    assert load(**scaled({**BY_DAY, "start": start}, serverAddress=None)).autoscaling


# --- what it makes


def test_keda_is_told_all_that_it_needs_to_know() -> None:
    found = spec(**scaled({**GATEWAY, "activationThreshold": 0.5}), startTimeoutSeconds=1200)
    assert found == {
        "scaleTargetRef": {"name": "m-predictor"},
        "minReplicaCount": 0,
        "maxReplicaCount": 4,
        "pollingInterval": 30,
        "cooldownPeriod": 300,
        "initialCooldownPeriod": 1200,
        "triggers": [
            {
                "type": "prometheus",
                "metadata": {
                    "serverAddress": PROMETHEUS,
                    "query": "sum(gateway_pending)",
                    "threshold": "5",
                    "activationThreshold": "0.5",
                },
                "metricType": "AverageValue",
            }
        ],
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((5, "5"), (5.0, "5"), (0.5, "0.5"), (1e6, "1e+06"), (1e-7, "1e-07"), (123456, "123456")),
        *(
            (1234567.5, "1234567.5"),
            (1999999.6, "1999999.6"),
            (1234567, "1234567"),
            (0.12345678, "0.12345678"),
        ),
    ],
)
def test_a_threshold_keeps_its_digits(value: float, text: str) -> None:
    [found] = spec(**scaled({**GATEWAY, "threshold": value, "activationThreshold": value}))["triggers"]
    assert found["metadata"]["threshold"] == found["metadata"]["activationThreshold"] == text


def test_vllms_own_metrics_are_of_the_models_own_pods() -> None:
    triggers = [{"type": name, "threshold": 0.8} for name in ("requests", "requestsWaiting", "kvCacheUse")]
    [requests, waiting, cache] = spec(**scaled(*triggers) | {"minReplicas": 1})["triggers"]
    pods = '{namespace="models",pod=~"m-predictor-.*"}'
    assert waiting["metadata"]["query"] == f"sum(vllm:num_requests_waiting{pods})"
    assert requests["metadata"]["query"] == (
        f"sum(vllm:num_requests_running{pods}) + sum(vllm:num_requests_waiting{pods})"
    )
    assert cache["metadata"]["query"] == f"avg(vllm:kv_cache_usage_perc{pods})"
    assert cache["metricType"] == "Value", "a share is no count that pods divide among them"
    assert waiting["metricType"] == "AverageValue"


def test_a_time_of_day_is_a_trigger() -> None:
    [found] = spec(**scaled(BY_DAY, serverAddress=None))["triggers"]
    assert found["type"] == "cron"
    assert found["metadata"] == {
        "timezone": "Europe/Berlin",
        "start": "0 8 * * 1-5",
        "end": "0 18 * * 1-5",
        "desiredReplicas": "2",
    }


def test_pods_may_stay_while_prometheus_does_not_answer() -> None:
    found = spec(**scaled(GATEWAY, BY_DAY, {"type": "requests", "threshold": 8}, fallbackReplicas=2))
    assert found["fallback"] == {"failureThreshold": 3, "replicas": 2}
    written = {trigger.get("metricType") for trigger in found["triggers"]}
    assert written == {"AverageValue"}, "KEDA 2.14 to 2.16 refuse it beside any trigger that does not say so"


# --- who keeps the number of pods


def test_kserve_leaves_the_number_to_keda() -> None:
    assert service_annotations(load(**scaled(GATEWAY)))[AUTOSCALER] == "external"
    assert service_annotations(load(**scaled(GATEWAY), idle=True))[AUTOSCALER] == "none"
    assert AUTOSCALER not in service_annotations(load(maxReplicas=4))


def declared(engine: Engine, **changes: Any) -> None:
    told = load(serviceName="m", namespace="models", **changes)

    def program() -> dict[str, Any]:
        parent = pulumi.ComponentResource("test:index:Parent", "parent")
        uri = pulumi.Output.from_input(f"oci://r.example/m@{DIGEST}")
        place = Destination(pulumi.ResourceOptions())
        return {"uri": delivery.to_cluster(parent, "m", told, uri, place).served}

    engine.run(program)


def test_the_scaled_object_is_declared_once_the_model_has_served() -> None:
    engine = Engine(preview=False)
    order: list[str] = []
    engine.await_rolled_out.side_effect = lambda *_: order.extend(row.type for row in engine.declared)
    declared(engine, **scaled(GATEWAY))
    found = engine.the("ScaledObject")
    assert found.type == "kubernetes:keda.sh/v1alpha1:ScaledObject"
    assert found.inputs["metadata"] == {"name": "m", "namespace": "models", "annotations": OWNED}
    assert "kubernetes:serving.kserve.io/v1beta1:InferenceService" in order
    assert found.type not in order


def test_a_model_that_does_not_serve_is_not_scaled() -> None:
    engine = Engine(preview=False)
    engine.await_rolled_out.side_effect = pulumi.RunError("it does not serve")
    with pytest.raises(pulumi.RunError, match="it does not serve"):
        declared(engine, **scaled(GATEWAY))
    assert "kubernetes:keda.sh/v1alpha1:ScaledObject" not in {row.type for row in engine.declared}


def test_a_model_whose_scaled_object_is_refused_serves_and_is_told_as_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As with `--continue-on-error`: KServe has handed the number over, and nobody scales it."""

    def register(self: mocked_engine.Monitor, request: Any) -> Any:
        answer = registered(self, request)
        if request.type.endswith(":ScaledObject"):
            answer.result = resource_pb2.Result.FAIL
        return answer

    registered = mocked_engine.Monitor.RegisterResource
    monkeypatch.setattr(mocked_engine.Monitor, "RegisterResource", register)
    image = f"ghcr.io/others/m@{DIGEST}"
    stack = list_of({"name": "a", "image": image}, {"name": "b", "image": image, **scaled(GATEWAY)})
    found: dict[str, Any] = {}

    async def end(models: dict[str, Model]) -> bool:
        found["served"], found["failed"] = await outcomes.outcomes(models)
        return True

    def program() -> dict[str, pulumi.Output[Any]]:
        place = Destination(pulumi.ResourceOptions())
        models = {
            model.key: Model(
                model.key,
                ModelArgs(
                    model,
                    None,
                    read_base(model.architecture),
                    Path(),
                    existing=Existing(model.place, 1, 1.0, ""),
                    destination=place,
                ),
            )
            for model in stack.models
        }
        return {"ended": pulumi.Output.from_input(end(models))}

    Engine(preview=False).run(program)
    assert list(found["failed"]) == ["b"]
    assert list(found["served"]) == ["a", "b"], "its pods are the new ones"


def test_an_idle_model_has_no_scaled_object() -> None:
    engine = Engine(preview=False)
    declared(engine, **scaled(GATEWAY), idle=True)
    assert "kubernetes:keda.sh/v1alpha1:ScaledObject" not in {row.type for row in engine.declared}


def test_git_keeps_the_scaled_object_of_an_idle_model_and_it_keeps_no_pod(project: Path) -> None:
    """A sync by hand leaves an object whose file is gone: KEDA would start pods, and KServe end them."""
    awake = manifests(settings(**scaled(GATEWAY)), project)["scaledobject.yaml"]
    idle = manifests(settings(**scaled(GATEWAY), idle=True), project)["scaledobject.yaml"]
    assert idle["metadata"].pop("annotations") == {"autoscaling.keda.sh/paused-replicas": "0"}
    assert idle == awake
    assert "scaledobject.yaml" not in manifests(settings(), project)


def test_git_has_the_scaled_object_after_the_service(project: Path) -> None:
    found = manifests(settings(**scaled(GATEWAY)), project)
    assert list(found)[-2:] == ["inferenceservice.yaml", "scaledobject.yaml"]
    document = found["scaledobject.yaml"]
    assert (document["apiVersion"], document["kind"]) == ("keda.sh/v1alpha1", "ScaledObject")
    assert document["spec"]["scaleTargetRef"] == {"name": "qwen-oci-predictor"}


# --- the cluster


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    made = FakeCluster()
    monkeypatch.setattr("components.cluster.access.Cluster.of", lambda _: made)
    monkeypatch.setattr("components.cluster.existing.Cluster.of", lambda _: made)
    return made


def test_a_cluster_without_keda_is_refused_before_anything_is_made(cluster: FakeCluster) -> None:
    told = load(**scaled(GATEWAY))
    with pytest.raises(InputError, match=r"(?s)modelcar:autoscaling: set, and .* knows no ScaledObject"):
        keda.require(told)
    cluster.found["/apis/keda.sh/v1alpha1"] = {"resources": [{"kind": "ScaledObject"}]}
    keda.require(told)
    cluster.refusals["/apis/keda.sh/v1alpha1"] = ClusterError(403, "forbidden")
    keda.require(told)


def test_somebody_elses_scaled_object_is_not_taken_over(cluster: FakeCluster) -> None:
    path = "/apis/keda.sh/v1alpha1/namespaces/models/scaledobjects/m"
    cluster.found[path] = {"metadata": {"managedFields": [{"manager": "kubectl"}]}}
    wanted = {"kind": "ScaledObject", "metadata": {"name": "m", "namespace": "models"}}
    with pytest.raises(pulumi.RunError) as caught:
        existing.refuse_existing(load(), wanted)
    assert "fix: choose another name (modelcar:serviceName), or delete it" in str(caught.value)
    assert "importObjects" not in str(caught.value), "there is no such setting for it"
