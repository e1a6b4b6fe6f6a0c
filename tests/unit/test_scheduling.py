"""Where pods run, for clusters whose nodes somebody else made: the same for all pods that a model has."""

from __future__ import annotations

from typing import Any

import pytest

from components.cluster.smoke import objects
from components.cluster.smoke_volumes import OFFERED
from components.manifests.gitops import manifests
from components.manifests.pre_pull import daemon_set_spec
from components.manifests.service import predictor, revision, serving_runtime
from tests.conftest import PROJECT
from tests.unit.test_components_settings import load, problems
from tests.unit.test_google_settings import dev
from tests.unit.test_google_settings import load as load_google
from tests.unit.test_google_settings import problems as google_problems

URI = "oci://localhost:5000/models/m@sha256:" + "0" * 64
PLACEMENTS = ("servingRuntime", "storageUriEnv", "storageUris", "imageVolume")

SCHEDULING: dict[str, Any] = {
    "nodeSelector": {"pool": "gpu", "example.com/zone": "a"},
    "nodeAffinity": [
        {"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": ["40000"]},
        {"key": "node.kubernetes.io/instance-type", "values": ["p5.48xlarge", "p5e.48xlarge"]},
        {"key": "maintenance", "operator": "DoesNotExist"},
    ],
    "tolerations": [
        {"key": "dedicated", "operator": "Equal", "value": "models", "effect": "NoSchedule"},
        {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "tolerationSeconds": 30},
    ],
    "topologySpread": [{"topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}],
    "runtimeClassName": "nvidia",
    "priorityClassName": "serving",
    "schedulerName": "volcano",
    "podLabels": {"kueue.x-k8s.io/queue-name": "models", "team": "search"},
    "podAnnotations": {"karpenter.sh/do-not-disrupt": "true"},
}
GPU = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
#: What the settings come to, of every pod that has to land on the model's nodes.
NODES: dict[str, Any] = {
    "nodeSelector": {"pool": "gpu", "example.com/zone": "a"},
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {
                        "matchExpressions": [
                            {"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": ["40000"]},
                            {
                                "key": "node.kubernetes.io/instance-type",
                                "operator": "In",
                                "values": ["p5.48xlarge", "p5e.48xlarge"],
                            },
                            {"key": "maintenance", "operator": "DoesNotExist"},
                        ]
                    }
                ]
            }
        }
    },
    "tolerations": [
        {"key": "dedicated", "operator": "Equal", "value": "models", "effect": "NoSchedule"},
        {
            "key": "node.kubernetes.io/unreachable",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 30,
        },
    ],
    "runtimeClassName": "nvidia",
}


def with_gpu(fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "tolerations": [GPU, *fields["tolerations"]]}


def part(pod: dict[str, Any]) -> dict[str, Any]:
    return {key: pod[key] for key in NODES}


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_models_pods_have_all_of_it_in_every_placement(placement: str) -> None:
    found = predictor(load(placement=placement, scheduling=SCHEDULING, serviceName="m"), URI)
    assert part(found) == with_gpu(NODES)
    assert (found["priorityClassName"], found["schedulerName"]) == ("serving", "volcano")
    assert found["labels"] == SCHEDULING["podLabels"]
    assert found["annotations"] == SCHEDULING["podAnnotations"]
    [spread] = found["topologySpreadConstraints"]
    assert spread == {
        "topologyKey": "topology.kubernetes.io/zone",
        "maxSkew": 1,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"serving.kserve.io/inferenceservice": "m"}},
    }


def test_a_stack_that_says_nothing_has_nothing_of_it() -> None:
    names = {
        *NODES,
        "topologySpreadConstraints",
        "priorityClassName",
        "schedulerName",
        "labels",
        "annotations",
    }
    assert not names & predictor(load(gpuCount=0), URI).keys()
    assert names & predictor(load(), URI).keys() == {"tolerations"}


def test_what_pulls_ahead_lands_on_the_same_nodes() -> None:
    pod = daemon_set_spec(load(scheduling=SCHEDULING), URI)["template"]["spec"]
    assert part(pod) == with_gpu(NODES)
    assert "schedulerName" not in pod, "a DaemonSet's pods are placed by Kubernetes itself"
    assert "priorityClassName" not in pod, "it pushes nobody away"


@pytest.mark.parametrize("placement", OFFERED)
def test_the_smoke_test_lands_on_the_same_nodes(placement: str) -> None:
    *_, (_, service) = objects(load(scheduling=SCHEDULING), URI, "smoke", placement)
    assert part(service["spec"]["predictor"]) == NODES


def test_it_is_in_the_rendered_yaml(tmp_path: Any) -> None:
    settings = load(scheduling=SCHEDULING, model="tiny-qwen2", prePull=True)
    found = manifests(settings, PROJECT)
    assert part(found["inferenceservice.yaml"]["spec"]["predictor"]) == with_gpu(NODES)
    assert part(found["daemonset.yaml"]["spec"]["template"]["spec"]) == with_gpu(NODES)


def test_a_change_of_it_makes_new_pods() -> None:
    before, after = load(), load(scheduling={"priorityClassName": "serving"})
    assert revision(before, URI) != revision(after, URI)
    assert serving_runtime(before) == serving_runtime(after), "models that share a runtime differ in this"


def test_the_models_own_pool_stays_on_google() -> None:
    settings = load_google(dev(scheduling={"nodeSelector": {"disk": "fast"}}))
    selector = {"disk": "fast", "cloud.google.com/gke-nodepool": "gpu"}
    assert predictor(settings, URI)["nodeSelector"] == selector
    [found] = google_problems(scheduling={"nodeSelector": {"cloud.google.com/gke-nodepool": "x"}})
    assert found.key == "modelcar:scheduling.nodeSelector"
    assert found.fix == "choose the pool by nodePool"


def test_the_gpus_own_taint_is_tolerated_once() -> None:
    settings = load(scheduling={"tolerations": [GPU]})
    assert predictor(settings, URI)["tolerations"] == [GPU]


@pytest.mark.parametrize(
    ("said", "key", "value", "allowed", "fix"),
    [
        (
            {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]},
            "tolerations[0].value",
            "b, and operator is Exists",
            "none",
            "set operator to Equal",
        ),
        (
            {"tolerations": [{"operator": "Equal", "value": "b"}]},
            "tolerations[0].key",
            "not set, and operator is Equal",
            "the taint's key",
            "or take Exists",
        ),
        (
            {"tolerations": [{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 3}]},
            "tolerations[0].tolerationSeconds",
            "3, and effect is NoSchedule",
            "with effect NoExecute only",
            "remove it",
        ),
        (
            {"tolerations": [{"key": "a", "effect": "NoScedule"}]},
            "tolerations[0].effect",
            "'NoScedule'",
            "'NoSchedule', 'PreferNoSchedule' or 'NoExecute'",
            "did you mean NoSchedule?",
        ),
        (
            {"tolerations": [{"kee": "a"}]},
            "tolerations[0].kee",
            "unknown key",
            "tolerationSeconds",
            "did you mean key?",
        ),
        (
            {"nodeAffinity": [{"key": "a", "operator": "In"}]},
            "nodeAffinity[0].values",
            "none, and operator is In",
            "one or more",
            "name them",
        ),
        (
            {"nodeAffinity": [{"key": "a", "operator": "Exists", "values": ["b"]}]},
            "nodeAffinity[0].values",
            "['b'], and operator is Exists",
            "none",
            "remove them",
        ),
        (
            {"nodeAffinity": [{"key": "a", "operator": "Gt", "values": ["many"]}]},
            "nodeAffinity[0].values",
            "['many'], and operator is Gt",
            "one integer",
            '["8"]',
        ),
        (
            {"topologySpread": [{"topologyKey": "zone"}, {"topologyKey": "zone", "maxSkew": 2}]},
            "topologySpread[1]",
            "zone with ScheduleAnyway, twice",
            "each once",
            "take one out",
        ),
        (
            {"nodeSelector": {"pool": True}},
            "nodeSelector.pool",
            "True: not the value of a label",
            "quoted, where it looks like a number or true",
            "kubectl get nodes --show-labels",
        ),
        (
            {"runtimeClassName": "NVIDIA"},
            "runtimeClassName",
            "'NVIDIA': Kubernetes refuses this name",
            "lower-case letters",
            "kubectl get runtimeclasses",
        ),
        (
            {"podLabels": {"app": "mine"}},
            "podLabels",
            "app, which KServe or the program sets",
            "other keys",
            "take it out",
        ),
        (
            {"podAnnotations": {"serving.kserve.io/autoscalerClass": "hpa"}},
            "podAnnotations",
            "serving.kserve.io/autoscalerClass, which KServe or the program sets",
            "other keys",
            "take it out",
        ),
        ({"podAnnotations": {"a": 1}}, "podAnnotations.a", "1: not a text", "a text", "quote it"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_mistake_is_told_with_its_place(
    said: dict[str, Any], key: str, value: str, allowed: str, fix: str
) -> None:
    [found] = problems(scheduling=said)
    assert found.key == f"modelcar:scheduling.{key}"
    assert value in found.value
    assert allowed in found.allowed
    assert fix in found.fix


def test_the_key_of_a_label_is_checked_too() -> None:
    found = problems(scheduling={"nodeSelector": {"not a key": "x"}})
    assert any("not the key of a label" in problem.value for problem in found)


def test_all_mistakes_are_told_at_once() -> None:
    found = problems(
        scheduling={"tolerations": [{"value": "a"}], "podLabels": {"app": "x"}},
        termination={"gracePeriodSeconds": 5, "preStopSeconds": 9},
        minReplicas=2,
    )
    assert {problem.key.removeprefix("modelcar:") for problem in found} == {
        "scheduling.tolerations[0].value",
        "scheduling.podLabels",
        "termination.preStopSeconds",
        "maxReplicas",
    }
