"""How a pod ends, and how patiently it is asked: preStop, drain and grace period fit together."""

from __future__ import annotations

from typing import Any

import pytest

from components.cluster.smoke import objects
from components.config.checks.termination import doubts
from components.kserve.model_service import _timeouts
from components.manifests.server_arguments import server_arguments
from components.manifests.service import container, predictor, serving_timeout
from tests.unit.test_components_settings import DIGEST, load, problems

URI = "oci://localhost:5000/models/m@sha256:" + "0" * 64
OLD = f"docker.io/vllm/vllm-openai:v0.17.1@{DIGEST}"


def drain(**changes: Any) -> list[str]:
    return [one for one in server_arguments(load(**changes)) if one.startswith("--shutdown-timeout")]


def test_the_defaults_fit_together() -> None:
    settings = load()
    assert predictor(settings, URI)["terminationGracePeriodSeconds"] == 330
    assert container(settings)["lifecycle"] == {"preStop": {"sleep": {"seconds": 10}}}
    assert drain() == ["--shutdown-timeout=300"], "20 s are left for the server to end"


def test_what_the_grace_period_leaves_is_the_servers() -> None:
    assert drain(termination={"gracePeriodSeconds": 120}) == ["--shutdown-timeout=90"]
    assert drain(termination={"gracePeriodSeconds": 120, "preStopSeconds": 30}) == ["--shutdown-timeout=70"]
    assert drain(termination={"gracePeriodSeconds": 25}) == [], "vLLM cuts off where nothing is left"
    assert drain(termination={"drainSeconds": 60}) == ["--shutdown-timeout=60"]


def test_no_sleep_is_no_hook() -> None:
    assert "lifecycle" not in container(load(termination={"preStopSeconds": 0}))


def test_what_the_stack_says_itself_is_not_said_twice() -> None:
    for said in (["--shutdown-timeout=40"], ["--shutdown-timeout", "40"], ["--shutdown_timeout=40"]):
        assert server_arguments(load(serverArgs=said))[-len(said) :] == said
        assert len(drain(serverArgs=said)) <= 1
    assert drain(termination={"drainSeconds": 0}) == []


def test_a_server_without_the_argument_does_not_get_it_and_that_is_said() -> None:
    assert drain(serverImage=OLD) == []
    [said] = doubts(load(serverImage=OLD))
    assert said == (
        "qwen-oci: vLLM 0.17.1 has no --shutdown-timeout (0.18.0 and newer have): answers are cut off when a "
        "pod goes"
    )
    assert list(doubts(load())) == []
    assert drain(runtime="custom") == []
    assert list(doubts(load(runtime="custom", serverImage=OLD))) == []
    assert drain(serverImage=f"registry.example/mine:1@{DIGEST}") == ["--shutdown-timeout=300"]


def test_knative_gets_none_of_it_which_it_refuses() -> None:
    settings = load(deploymentMode="Knative")
    assert "terminationGracePeriodSeconds" not in predictor(settings, URI)
    assert "lifecycle" not in container(settings)
    assert drain(deploymentMode="Knative") == []
    [found] = problems(deploymentMode="Knative", termination={"gracePeriodSeconds": 60})
    assert found.key == "modelcar:termination"
    assert found.value == "gracePeriodSeconds in deployment mode Knative"
    *_, (_, service) = objects(settings, URI, "smoke", "servingRuntime")
    assert "terminationGracePeriodSeconds" not in service["spec"]["predictor"]


def test_a_probe_of_the_smoke_test_is_gone_at_once() -> None:
    *_, (_, service) = objects(load(), URI, "smoke", "storageUris")
    spec = service["spec"]["predictor"]
    assert spec["terminationGracePeriodSeconds"] == 1
    assert "lifecycle" not in spec["containers"][0]


@pytest.mark.parametrize(
    ("changes", "key", "value", "fix"),
    [
        (
            {"termination": {"gracePeriodSeconds": 30, "preStopSeconds": 30}},
            "termination.preStopSeconds",
            "30, and the pod is ended after 30",
            "raise gracePeriodSeconds",
        ),
        (
            {"termination": {"gracePeriodSeconds": 60, "drainSeconds": 50}},
            "termination.drainSeconds",
            "50, and preStopSeconds 10, in a grace period of 60: the server would be killed before",
            "set termination.gracePeriodSeconds to 80",
        ),
        (
            {"serverArgs": ["--shutdown-timeout=600"]},
            "serverArgs",
            "--shutdown-timeout 600, and preStopSeconds 10, in a grace period of 330",
            "set termination.gracePeriodSeconds to 630",
        ),
        (
            {"serverArgs": ["--shutdown-timeout=60"], "termination": {"drainSeconds": 60}},
            "serverArgs",
            "--shutdown-timeout, which modelcar:termination.drainSeconds says too",
            "remove one",
        ),
        (
            {"runtime": "custom", "termination": {"drainSeconds": 60}},
            "termination.drainSeconds",
            "60, and runtime is custom",
            "say it in serverArgs",
        ),
        (
            {"termination": {"graceSeconds": 60}},
            "termination.graceSeconds",
            "unknown key",
            "did you mean gracePeriodSeconds?",
        ),
        (
            {"probes": {"liveness": {"failureThreshhold": 60}}},
            "probes.liveness.failureThreshhold",
            "unknown key",
            "did you mean failureThreshold?",
        ),
        ({"probes": {"readiness": {"path": "health"}}}, "probes.readiness.path", "'health'", "answers 200"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_does_not_fit_is_told(changes: dict[str, Any], key: str, value: str, fix: str) -> None:
    [found] = problems(**changes)
    assert found.key == f"modelcar:{key}"
    assert value in found.value
    assert fix in found.fix


def test_a_deletion_may_take_as_long_as_the_pods_have_to_finish() -> None:
    """The provider waits until they are gone; its own ten minutes may not be enough."""
    assert _timeouts(load(gpuCount=1)).delete == "600s"
    longer = load(gpuCount=1, termination={"gracePeriodSeconds": 1800})
    assert _timeouts(longer).delete == "1920s"
    assert _timeouts(longer).create == "1860s"
    assert _timeouts(longer).update == "3660s", "a former pod may finish first"
    assert serving_timeout(longer) == 1800 + 60, "counted from the moment that the former pod is gone"


# --- probes


def test_a_busy_server_is_waited_for() -> None:
    box = container(load())
    live, ready = box["livenessProbe"], box["readinessProbe"]
    assert live["timeoutSeconds"] * live["failureThreshold"] >= 300, "minutes without an answer, no seconds"
    assert ready["timeoutSeconds"] * ready["failureThreshold"] >= 60
    assert ready["periodSeconds"] <= 5, "a server that has started gets its requests soon"


def test_each_probe_is_as_the_stack_says() -> None:
    said = {
        "startup": {"periodSeconds": 7, "timeoutSeconds": 3},
        "readiness": {"path": "/ready", "periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 3},
        "liveness": {"periodSeconds": 4, "timeoutSeconds": 5, "failureThreshold": 6},
    }
    box = container(load(probes=said, healthPath="/live", startTimeoutSeconds=70))
    live, ready = {"path": "/live", "port": 8080}, {"path": "/ready", "port": 8080}
    assert box["startupProbe"] == {
        "httpGet": live,
        "periodSeconds": 7,
        "timeoutSeconds": 3,
        "failureThreshold": 10,
    }
    assert box["readinessProbe"] == {
        "httpGet": ready,
        "periodSeconds": 1,
        "timeoutSeconds": 2,
        "failureThreshold": 3,
    }
    assert box["livenessProbe"] == {
        "httpGet": live,
        "periodSeconds": 4,
        "timeoutSeconds": 5,
        "failureThreshold": 6,
    }


def test_restarts_can_be_left_to_the_server() -> None:
    box = container(load(probes={"liveness": {"enabled": False}}))
    assert "livenessProbe" not in box
    assert {"startupProbe", "readinessProbe"} <= box.keys()
