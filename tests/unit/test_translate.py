"""What a stack says reaches the components whole: settings and arguments come to the same objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as some

from components.cluster.guard import ClusterAccess
from components.config.checks.models import runtime_differences
from components.config.checks.together import spec_problems
from components.config.model_spec import ModelSpec
from components.config.models import load_stack
from components.config.settings import Settings
from components.kserve.server import ServerResources, VllmServer
from components.manifests.service import predictor, revision, service_annotations, serving_runtime
from components.stack import translate
from tests.conftest import PROJECT
from tests.unit.test_components_image_and_service import STORAGE_URI, stack
from tests.unit.test_google_settings import dev, load

#: Of everything that a pod is made of, a value that is no default.
CHANGES: dict[str, Any] = {
    "servedModelName": "chat",
    "placement": "storageUriEnv",
    "rollout": "RollingUpdate",
    "minReplicas": 2,
    "maxReplicas": 2,
    "idle": True,
    "startTimeoutSeconds": 77,
    "vllm": {"maxModelLen": "32k", "enforceEager": True, "loraModules": [{"name": "fr", "path": "fr"}]},
    "kernels": "off",
    "serverCommand": ["python", "-m", "server"],
    "serverArgs": ["--seed=1"],
    "serverEnv": ["A=b=c", "EMPTY="],
    "serverWritablePaths": ["/cache"],
    "serverPort": 9000,
    "healthPath": "/ping",
    "cpu": "2",
    "cpuLimit": "8",
    "memory": "3Gi",
    "sharedMemory": "1Gi",
    "gpuCount": 2,
    "scheduling": {"nodeSelector": {"disk": "fast"}, "podLabels": {"team": "a"}},
    "probes": {"readiness": {"path": "/ready"}},
    "termination": {"gracePeriodSeconds": 99},
    "runtime": "custom",
    "deploymentMode": "Knative",
}

#: What a change needs beside it.
BESIDE = {"minReplicas": ("maxReplicas",)}


def of_components(settings: Settings) -> ModelSpec:
    args = translate.service(settings, STORAGE_URI, None, None, ClusterAccess())
    return args.spec(settings.key)


def changed(keys: set[str]) -> Settings:
    more = {name for key in keys for name in BESIDE.get(key, ())}
    return stack(**{key: CHANGES[key] for key in keys | more})


def objects(spec: ModelSpec) -> Mapping[str, Any]:
    return {
        "predictor": predictor(spec, STORAGE_URI, "account"),
        "runtime": serving_runtime(spec),
        "annotations": service_annotations(spec),
        "revision": revision(spec, STORAGE_URI, "account"),
    }


@pytest.mark.parametrize("key", CHANGES)
def test_each_setting_reaches_the_objects(key: str) -> None:
    settings = changed({key})
    assert objects(of_components(settings)) == objects(settings)
    if key not in {"rollout", "idle"}:  # a default that says the same, and one that is seen elsewhere
        assert objects(settings) != objects(stack())


@pytest.mark.parametrize("key", sorted(CHANGES.keys() - {"placement"}))
def test_models_that_share_a_runtime_are_equal_for_all_that_it_is_made_of(key: str) -> None:
    first = stack(sharedRuntime="vllm")
    other = stack(sharedRuntime="vllm", **{name: CHANGES[name] for name in {key, *BESIDE.get(key, ())}})
    made = translate.shared_runtime(other, ClusterAccess()).spec("vllm")
    assert serving_runtime(made) == serving_runtime(other)
    same = serving_runtime(first) == serving_runtime(other)
    # Compared all the same: some of these are in arguments too, or come to the same numbers.
    assert same or runtime_differences(first, other)


@pytest.mark.parametrize(
    "said",
    [
        {"gpuCount": 2, "vllm": {"tensorParallelSize": 2}},
        {"gpuCount": 2, "serverArgs": ["-tp=2"]},
        {"gpuCount": 8, "vllm": {"tensorParallelSize": 2, "pipelineParallelSize": 4}},
    ],
)
def test_a_model_that_says_its_split_may_share_a_runtime(said: dict[str, Any]) -> None:
    settings = stack(sharedRuntime="vllm", **said)
    assert not spec_problems(settings)
    made = translate.shared_runtime(settings, ClusterAccess()).spec("vllm")
    assert serving_runtime(made) == serving_runtime(settings)


@given(some.sets(some.sampled_from(sorted(CHANGES.keys() - {"runtime", "deploymentMode", "idle"}))))
def test_any_of_them_together_do(keys: set[str]) -> None:
    settings = changed(keys)
    assert objects(of_components(settings)) == objects(settings)


def test_a_pool_of_googles_is_what_the_pods_land_on() -> None:
    settings = load(dev())
    found = objects(of_components(settings))
    assert found == objects(settings)
    assert found["predictor"]["nodeSelector"] == {"cloud.google.com/gke-nodepool": "gpu"}


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_the_stacks_of_this_project_come_to_the_same(name: str) -> None:
    config = yaml.safe_load((PROJECT / f"Pulumi.{name}.yaml").read_text())["config"]
    told = {key: _json(value) for key, value in config.items()}
    for settings in load_stack(told, PROJECT).models:
        if settings.placement == "auto":
            settings = settings.model_copy(update={"placement": "servingRuntime"})
        assert objects(of_components(settings)) == objects(settings)


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def test_defaults_are_those_of_the_settings() -> None:
    plain = stack(serviceName="tiny")
    assert translate.resources(plain) == ServerResources()
    assert translate.server(plain) == VllmServer(image=plain.server_image, served_model_name=plain.model_name)


def test_folders_of_this_machine_and_its_gpu_go_together_on_the_local_stack() -> None:
    settings = stack(registryInsecure=True, serverHostPaths=["/opt/server"], gpuCount=1)
    assert objects(of_components(settings)) == objects(settings)
