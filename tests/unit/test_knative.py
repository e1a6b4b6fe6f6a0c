"""How long Knative waits: what may be said, and what is declared."""

from __future__ import annotations

import re
from typing import Any

import pytest

from components.cluster import knative_fit
from components.cluster.access import ClusterError
from components.manifests.service import predictor, revision, service_annotations
from modelcar.errors import InputError
from tests.conftest import PROJECT
from tests.unit.fake_cluster import FakeCluster
from tests.unit.test_components_settings import load, problems


def declared(**changes: Any) -> tuple[dict[str, str], dict[str, Any]]:
    settings = load(deploymentMode="Knative", **changes)
    return service_annotations(settings), predictor(settings, "oci://registry.example/m@sha256:1")


def test_a_start_has_the_time_that_the_stack_gives_it_and_a_request_outlasts_it() -> None:
    annotations, pods = declared(startTimeoutSeconds=900)
    assert annotations == {"serving.knative.dev/progress-deadline": "900s"}
    assert pods["timeout"] == 600, "the most that a Knative as shipped takes"


def test_what_is_said_is_declared_in_knatives_own_words() -> None:
    annotations, pods = declared(
        knative={
            "timeoutSeconds": 1200,
            "stableWindowSeconds": 6,
            "scaleDownDelaySeconds": 0,
            "lastPodRetentionSeconds": 3600,
        }
    )
    assert annotations == {
        "serving.knative.dev/progress-deadline": "1800s",
        "autoscaling.knative.dev/window": "6s",
        "autoscaling.knative.dev/scale-down-delay": "0s",
        "autoscaling.knative.dev/scale-to-zero-pod-retention-period": "3600s",
    }
    assert pods["timeout"] == 1200


def test_standard_mode_has_none_of_it() -> None:
    settings = load()
    assert "timeout" not in predictor(settings, "oci://registry.example/m@sha256:1")
    assert not [name for name in service_annotations(settings) if "knative" in name]
    [refused] = problems(knative={"timeoutSeconds": 60})
    assert (refused.key, refused.fix.split(";")[0]) == ("modelcar:knative", "remove modelcar:knative")


@pytest.mark.parametrize(
    ("own", "key"),
    [
        ({"timeoutSeconds": 0}, "timeoutSeconds"),
        ({"timeoutSeconds": 86401}, "timeoutSeconds"),
        ({"stableWindowSeconds": 5}, "stableWindowSeconds"),
        ({"stableWindowSeconds": 3601}, "stableWindowSeconds"),
        ({"scaleDownDelaySeconds": -1}, "scaleDownDelaySeconds"),
        ({"lastPodRetentionSeconds": "1h"}, "lastPodRetentionSeconds"),
        ({"window": 60}, "window"),
    ],
)
def test_what_knative_would_refuse_is_refused_before(own: dict[str, Any], key: str) -> None:
    [refused] = problems(deploymentMode="Knative", knative=own)
    assert refused.key == f"modelcar:knative.{key}"


def test_what_makes_a_new_revision_for_knative_is_one_for_the_rollout() -> None:
    def of(**changes: Any) -> str:
        return revision(load(deploymentMode="Knative", **changes), "oci://registry.example/m@sha256:1")

    assert of() == of()
    assert of(startTimeoutSeconds=900) != of()


# --- whether the cluster's Knative takes it

CONFIGS = "/api/v1/namespaces/knative-serving/configmaps"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """A Knative as shipped."""
    made = FakeCluster()
    made.found |= {f"{CONFIGS}/config-{name}": {"data": None} for name in ("features", "defaults")}
    monkeypatch.setattr("components.cluster.access.Cluster.of", lambda _: made)
    return made


def refused(**changes: Any) -> dict[str, tuple[str, str]]:
    """Return what is refused: value and fix by key."""
    settings = load(deploymentMode="Knative", **changes)
    with pytest.raises(InputError) as caught:
        knative_fit.require(settings, [load(), settings, settings])
    found = caught.value.problems
    assert len({problem.key for problem in found}) == len(found), "each once"
    return {problem.key.split(", ")[-1]: (problem.value, problem.fix) for problem in found}


def taken(**changes: Any) -> None:
    settings = load(deploymentMode="Knative", **changes)
    knative_fit.require(settings, [settings])


def test_a_knative_as_shipped_takes_a_model_without_wishes(cluster: FakeCluster) -> None:
    taken(gpuCount=0)


def test_a_feature_that_a_model_needs_and_is_off_is_told_with_the_command(cluster: FakeCluster) -> None:
    said = {"nodeSelector": {"disk": "fast"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]}
    found = refused(gpuCount=0, scheduling=said)
    assert set(found) == {"kubernetes.podspec-nodeselector", "kubernetes.podspec-tolerations"}
    value, fix = found["kubernetes.podspec-tolerations"]
    assert value == "not set, which is disabled"
    assert fix.endswith("""-p '{"data":{"kubernetes.podspec-tolerations":"enabled"}}'""")
    on = {"kubernetes.podspec-nodeselector": "Enabled", "kubernetes.podspec-tolerations": "allowed"}
    cluster.found[f"{CONFIGS}/config-features"] = {"data": on}
    taken(gpuCount=0, scheduling=said)


def test_each_field_of_a_pod_that_knative_has_a_feature_for_is_asked(cluster: FakeCluster) -> None:
    said = {
        "nodeSelector": {"disk": "fast"},
        "nodeAffinity": [{"key": "memory", "operator": "Gt", "values": ["1"]}],
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "topologySpread": [{"topologyKey": "zone"}],
        "runtimeClassName": "nvidia",
        "priorityClassName": "serving",
        "schedulerName": "own",
    }
    text = (PROJECT / "docs/scheduling.md").read_text().partition("`config-features`\n")[2].partition(")")[0]
    told = [name.removeprefix("kubernetes.podspec") for name in re.findall(r"`([\w.-]+)`", text)]
    assert set(refused(gpuCount=0, scheduling=said)) == {f"kubernetes.podspec{name}" for name in told}


def test_what_is_on_as_shipped_can_be_switched_off(cluster: FakeCluster) -> None:
    off = {"kubernetes.podspec-volumes-emptydir": "disabled"}
    cluster.found[f"{CONFIGS}/config-features"] = {"data": off}
    assert refused(gpuCount=0)["kubernetes.podspec-volumes-emptydir"][0] == "disabled"


def test_a_longer_request_than_the_cluster_allows_is_refused(cluster: FakeCluster) -> None:
    own = {"timeoutSeconds": 900}
    value, fix = refused(gpuCount=0, knative=own)["modelcar:knative.timeoutSeconds"]
    assert value == "900"
    assert """{"data":{"max-revision-timeout-seconds":"900"}}""" in fix
    cluster.found[f"{CONFIGS}/config-defaults"] = {"data": {"max-revision-timeout-seconds": "1800"}}
    taken(gpuCount=0, knative=own)


def test_a_cluster_without_knative_or_that_does_not_tell_is_refused(cluster: FakeCluster) -> None:
    cluster.found.clear()
    [(value, fix)] = refused().values()
    assert value == "is not there"
    assert "deploymentMode to Standard" in fix
    cluster.refusals[f"{CONFIGS}/config-features"] = ClusterError(403, "forbidden")
    [(value, fix)] = refused().values()
    assert "forbidden" in value
    assert "kserve.verify false" in fix
