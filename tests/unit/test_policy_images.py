"""Every place of every kind that an image gets into a pod from: pinned there, or refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.test_policy_cases import (
    DIGEST,
    ENABLED,
    URI,
    Json,
    Res,
    container,
    inference_service,
    kserve_config,
    kubernetes,
    messages,
    release,
    server,
    workload,
)

IMAGE = "europe-docker.pkg.dev/my-project-1/models/qwen"
KSERVE = "serving.kserve.io/v1alpha1"


def pod(reference: str) -> Json:
    """Return a pod's spec with an image volume (Kubernetes 1.35 and later by default)."""
    volumes = [{"name": "tmp", "emptyDir": {}}, {"name": "weights", "image": {"reference": reference}}]
    return {"containers": [server()], "volumes": volumes}


def replica_set(spec: Json) -> Res:
    return kubernetes("apps/v1", "ReplicaSet", "set", {"spec": {"template": {"spec": spec}}})


def llm(spec: Json) -> Res:
    return kubernetes("serving.kserve.io/v1alpha2", "LLMInferenceService", "llm", {"spec": spec})


HOLDERS: dict[str, Any] = {
    **{
        kind: lambda spec, kind=kind: workload(kind, spec)
        for kind in ("Pod", "Deployment", "DaemonSet", "StatefulSet", "Job", "CronJob")
    },
    "ReplicaSet": replica_set,
    "predictor": inference_service,
    "worker": lambda spec: inference_service({"containers": [server()], "workerSpec": spec}),
    **{
        part: lambda spec, part=part: kubernetes(
            "serving.kserve.io/v1beta1",
            "InferenceService",
            "x",
            {"spec": {"predictor": {"containers": [server()]}, part: spec}},
        )
        for part in ("transformer", "explainer")
    },
    **{
        kind: lambda spec, kind=kind: kubernetes(KSERVE, kind, "runtime", {"spec": spec})
        for kind in ("ServingRuntime", "ClusterServingRuntime")
    },
    "LLM template": lambda spec: llm({"template": spec}),
    "LLM worker": lambda spec: llm({"worker": spec}),
    "LLM prefill": lambda spec: llm({"prefill": {"template": spec}}),
    "LLM scheduler": lambda spec: llm({"router": {"scheduler": {"template": spec}}}),
    "kind of somebody else": lambda spec: kubernetes(
        "leaderworkerset.x-k8s.io/v1",
        "LeaderWorkerSet",
        "set",
        {"spec": {"leaderWorkerTemplate": {"workerTemplate": {"spec": spec}}}},
    ),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_an_image_volume_is_named_by_digest_in_every_kind_that_holds_pods(holder: str) -> None:
    (message,) = messages("pinned-images", HOLDERS[holder](pod(f"{IMAGE}:v1")))
    assert f"volumes[1].image.reference: {IMAGE}:v1" in message
    assert messages("pinned-images", HOLDERS[holder](pod(f"{IMAGE}{DIGEST}"))) == []


@pytest.mark.parametrize("reference", [IMAGE, f"{IMAGE}@", "", "sha256:" + "a" * 64])
def test_what_is_no_digest_is_refused_in_a_volume_too(reference: str) -> None:
    assert len(messages("pinned-images", workload("Pod", pod(reference)))) == 1


def test_volumes_of_other_kinds_and_references_to_come_are_no_images() -> None:
    volumes = [{"name": "a", "emptyDir": {}}, {"name": "b", "image": {}}]
    assert messages("pinned-images", workload("Pod", {"containers": [container()], "volumes": volumes})) == []


def test_an_ephemeral_container_is_named_by_digest() -> None:
    spec = {"containers": [container()], "ephemeralContainers": [{"name": "debug", "image": "busybox:1"}]}
    (message,) = messages("pinned-images", workload("Pod", spec))
    assert "spec.ephemeralContainers[0].image: busybox:1" in message


@pytest.mark.parametrize(
    ("kind", "spec", "path"),
    [
        ("ClusterStorageContainer", {"container": {"name": "c", "image": "x:1"}}, "spec.container.image"),
        ("LocalModelCache", {"sourceModelUri": f"{URI}:v1"}, "spec.sourceModelUri"),
        ("LocalModelNamespaceCache", {"sourceModelUri": f"{URI}:v1"}, "spec.sourceModelUri"),
    ],
)
def test_what_kserve_brings_to_nodes_and_pods_by_itself(kind: str, spec: Json, path: str) -> None:
    (message,) = messages("pinned-images", kubernetes(KSERVE, kind, "x", {"spec": spec}))
    assert f"{path}: " in message


def test_an_explainers_own_container() -> None:
    predictor = {"containers": [server()]}
    spec = {"spec": {"predictor": predictor, "explainer": {"art": {"type": "x", "image": "art:1"}}}}
    (message,) = messages(
        "pinned-images", kubernetes("serving.kserve.io/v1beta1", "InferenceService", "x", spec)
    )
    assert "spec.explainer.art.image: art:1" in message


@pytest.mark.parametrize("scheme", ["oci://", "oci+native://", "oci+fetch://", "OCI://"])
def test_every_scheme_that_brings_an_image_is_held_to_a_digest(scheme: str) -> None:
    for uri, count in ((f"{scheme}{IMAGE}:v1", 1), (f"{scheme}{IMAGE}{DIGEST}", 0)):
        service = inference_service({"storageUris": [{"uri": uri}], "containers": [server()]})
        assert len(messages("pinned-images", service)) == count, uri


@pytest.mark.parametrize("kind", ["Pod", "Deployment", "CronJob"])
def test_the_annotation_that_kserves_webhook_follows(kind: str) -> None:
    resource = workload(kind, {"containers": [container(name="kserve-container")]})
    annotations = {"internal.serving.kserve.io/storage-initializer-sourceuri": f"{URI}:v1"}
    spec = resource.properties["spec"]
    above = {"Pod": resource.properties, "Deployment": spec.get("template")}.get(kind)
    above = above or spec["jobTemplate"]["spec"]["template"]
    above["metadata"] = {**above.get("metadata", {}), "annotations": annotations}
    (message,) = messages("pinned-images", resource)
    assert f"storage-initializer-sourceuri: {URI}:v1" in message


# --- KServe's own configuration: what its modelcars run as


def section(**changes: Any) -> str:
    return json.dumps({"enableModelcar": True, "uidModelcar": 1010, **changes})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("uidModelcar", 0),
        ("uidModelcar", -1),
        ("uidModelcar", "1010"),
        ("uidModelcar", 10.5),
        ("cpuModelcar", "10 m"),
        ("memoryModelcar", "15"),
    ],
)
def test_a_user_or_size_that_no_pod_can_have_is_refused(field: str, value: Any) -> None:
    (message,) = messages("kserve-modelcar-enabled", kserve_config(section(**{field: value})))
    assert f"data.storageInitializer: {field}: {json.dumps(value)}" in message
    assert f'set "{field}" to ' in message


def test_another_user_than_this_programs_own_is_fine() -> None:
    assert messages("kserve-modelcar-enabled", kserve_config(section(uidModelcar=2000))) == []


def test_no_user_is_fine_in_standard_mode_and_root_in_knative_mode() -> None:
    config = kserve_config(json.dumps({"enableModelcar": True}))
    assert messages("kserve-modelcar-enabled", config) == []
    config.properties["data"]["deploy"] = json.dumps({"defaultDeploymentMode": "Knative"})
    (message,) = messages("kserve-modelcar-enabled", config)
    assert "uidModelcar: not set" in message


def storage(**values: Any) -> Res:
    return release({"kserve": {"storage": {**ENABLED["kserve"]["storage"], **values}}})


@pytest.mark.parametrize(
    ("field", "value"), [("uidModelcar", 0), ("uidModelcar", "root"), ("memoryModelcar", "15")]
)
def test_a_chart_with_such_a_user_or_size_is_refused(field: str, value: Any) -> None:
    (message,) = messages("kserve-modelcar-enabled", storage(**{field: value}))
    assert f"values.kserve.storage.{field}: {json.dumps(value)}" in message


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"uidModelcar": 2000},
        {"uidModelcar": "2000"},
        {"cpuModelcar": 1, "memoryModelcar": "20Mi"},
        {"memoryModelcar": 15728640},
    ],
)
def test_what_the_charts_template_makes_right_is_fine(values: Json) -> None:
    assert messages("kserve-modelcar-enabled", storage(**values)) == []
