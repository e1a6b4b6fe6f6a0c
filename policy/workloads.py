"""Where Kubernetes resources hold pods, containers and storage URIs.

The places are those of the Kubernetes API (v1.34) and of KServe 0.19 (pkg/apis/serving).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from policy.rule import Resource
from policy.values import UNKNOWN, at, entries

KSERVE = "serving.kserve.io"
#: KServe puts the model into the container of this name, and into a worker's.
SERVER_NAMES = ("kserve-container", "worker-container")

_TEMPLATE = ("spec", "template", "spec")
#: Kinds that start pods, with the path of each pod's spec.
_POD_SPECS: dict[tuple[str, str], tuple[tuple[str, ...], ...]] = {
    ("core", "Pod"): (("spec",),),
    ("core", "PodTemplate"): (("template", "spec"),),
    ("core", "ReplicationController"): (_TEMPLATE,),
    **{("apps", kind): (_TEMPLATE,) for kind in ("DaemonSet", "Deployment", "ReplicaSet", "StatefulSet")},
    ("batch", "Job"): (_TEMPLATE,),
    ("batch", "CronJob"): (("spec", "jobTemplate", *_TEMPLATE),),
    ("serving.knative.dev", "Configuration"): (_TEMPLATE,),
    ("serving.knative.dev", "Service"): (_TEMPLATE,),
    (KSERVE, "InferenceService"): (
        ("spec", "predictor"),
        ("spec", "predictor", "workerSpec"),
        ("spec", "transformer"),
        ("spec", "explainer"),
    ),
    **{
        (KSERVE, kind): (("spec",), ("spec", "workerSpec"))
        for kind in ("ServingRuntime", "ClusterServingRuntime")
    },
    **{
        (KSERVE, kind): (
            ("spec", "template"),
            ("spec", "worker"),
            ("spec", "prefill", "template"),
            ("spec", "prefill", "worker"),
            ("spec", "router", "scheduler", "template"),
        )
        for kind in ("LLMInferenceService", "LLMInferenceServiceConfig")
    },
}
#: Single containers: of a storage initializer of one's own, and of an explainer.
_CONTAINERS: dict[tuple[str, str], tuple[str, ...]] = {
    (KSERVE, "ClusterStorageContainer"): ("spec", "container"),
    (KSERVE, "InferenceService"): ("spec", "explainer", "art"),
}
#: Of pods: the URI of a model that KServe's webhook brings into a pod with its label.
_SOURCE_URI = "internal.serving.kserve.io/storage-initializer-sourceuri"
_URI_FIELDS = ("storageUri", "sourceModelUri", "uri")
#: Fields of a predictor that hold a model together with changes to its server's container.
MODEL_FIELDS = (
    "model",
    "huggingface",
    "lightgbm",
    "onnx",
    "paddle",
    "pmml",
    "pytorch",
    "sklearn",
    "tensorflow",
    "triton",
    "xgboost",
)


@dataclass(frozen=True)
class Pod:
    """A pod's spec and where it is in its resource."""

    path: str
    spec: dict[str, Any]


@dataclass(frozen=True)
class Container:
    """A container and where it is; `is_model`: a predictor's model, which changes a runtime's container."""

    path: str
    body: dict[str, Any]
    is_model: bool = False


def is_runtime(resource: Resource) -> bool:
    """Tell whether it describes model servers for other resources."""
    return resource.group == KSERVE and resource.kind in ("ServingRuntime", "ClusterServingRuntime")


def roots(resource: Resource) -> tuple[str, ...]:
    """Return the properties that hold what rules judge of a Kubernetes object; none of a kind without such.

    A kind that is not known here is judged by its spec, where it has one (`images`).
    """
    known = (resource.group, resource.kind)
    paths = [*_POD_SPECS.get(known, ()), *([_CONTAINERS[known]] if known in _CONTAINERS else ())]
    if paths:
        return tuple(dict.fromkeys(path[0] for path in paths))
    return ("spec",) if resource.group not in ("", "helm.sh") and resource.at("spec") is not None else ()


def pods(resource: Resource) -> Iterator[Pod]:
    """Yield the pods' specs of a resource, as far as they are known."""
    for path in _POD_SPECS.get((resource.group, resource.kind), ()):
        spec = resource.at(*path)
        if isinstance(spec, dict):
            yield Pod(".".join(path), spec)


def containers(pod: Pod) -> Iterator[Container]:
    """Yield the pod's containers, init containers and models."""
    for field in ("initContainers", "containers"):
        for number, body in entries(pod.spec.get(field)):
            if isinstance(body, dict):
                yield Container(f"{pod.path}.{field}[{number}]", body)
    if pod.path == "spec.predictor":
        for field in MODEL_FIELDS:
            if isinstance(body := pod.spec.get(field), dict):
                yield Container(f"{pod.path}.{field}", body, is_model=True)


def images(resource: Resource) -> Iterator[tuple[str, Any]]:
    """Yield the names of images, with their paths, of everything in a resource that is pulled as one.

    Containers, ephemeral ones too, and image volumes; of kinds that are not known here, those of whatever
    looks like a pod's spec.
    """
    known = (resource.group, resource.kind)
    if known in _CONTAINERS:
        yield from _named(resource.at(*_CONTAINERS[known]), ".".join(_CONTAINERS[known]), "image")
    specs = pods(resource) if known in _POD_SPECS else _pods_below(resource.at("spec"), "spec")
    for pod in specs if resource.group not in ("", "helm.sh") else ():
        for container in containers(pod):
            yield from _named(container.body, container.path, "image")
        for number, body in entries(pod.spec.get("ephemeralContainers")):
            yield from _named(body, f"{pod.path}.ephemeralContainers[{number}]", "image")
        for number, volume in entries(pod.spec.get("volumes")):
            yield from _named(at(volume, "image"), f"{pod.path}.volumes[{number}].image", "reference")


def _named(body: Any, path: str, field: str) -> Iterator[tuple[str, Any]]:
    if isinstance(body, dict) and field in body:  # a model, or a patch, may leave it to others
        yield f"{path}.{field}", body[field]


def _pods_below(value: Any, path: str) -> Iterator[Pod]:
    if isinstance(value, dict):
        if any(isinstance(value.get(field), list) for field in ("containers", "initContainers", "volumes")):
            yield Pod(path, value)
            return
        for key, below in value.items():
            yield from _pods_below(below, f"{path}.{key}")
    for number, entry in entries(value):
        yield from _pods_below(entry, f"{path}[{number}]")


def is_server(resource: Resource, pod: Pod, container: Container) -> bool:
    """Tell whether a container is the one that serves a model.

    Of a ServingRuntime, or of a predictor with containers of its own. KServe goes by the name; a container
    alone is the server whatever it is called.
    """
    serves = is_runtime(resource) or pod.path.startswith("spec.predictor")
    if resource.group != KSERVE or not serves or container.is_model or ".containers[" not in container.path:
        return False
    alone = isinstance(found := pod.spec.get("containers"), list) and len(found) == 1
    return alone or container.body.get("name") in SERVER_NAMES


def storage_uris(resource: Resource) -> Iterator[tuple[str, Any]]:
    """Yield the storage URIs of a resource with their paths: KServe's fields, variables and annotation."""
    if resource.group == KSERVE:
        yield from _uris_below(resource.at("spec"), "spec")
    for pod in pods(resource):
        above = pod.path.split(".")[:-1]  # of a pod, or of its template
        uri = at(resource.at(*above, "metadata", "annotations"), _SOURCE_URI)
        if resource.group != KSERVE and uri is not None:
            yield ".".join((*above, "metadata", "annotations", _SOURCE_URI)), uri
        for container in containers(pod):
            for number, variable in entries(container.body.get("env")):
                if at(variable, "name") == "STORAGE_URI" and "value" in variable:
                    yield f"{container.path}.env[{number}].value", variable["value"]


def _uris_below(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Find URIs at any depth: `model.storageUri`, `storageUris[].uri`, LLM `model.uri`, `sourceModelUri`."""
    if isinstance(value, dict):
        for key, below in value.items():
            if key in _URI_FIELDS and (isinstance(below, str) or below is UNKNOWN):
                yield f"{path}.{key}", below
            else:
                yield from _uris_below(below, f"{path}.{key}")
    for number, entry in entries(value):
        yield from _uris_below(entry, f"{path}[{number}]")
