"""Models and the runtimes that serve them, put together as KServe does (0.19, pkg/controller/…/utils).

A predictor's `model` changes the container of the ServingRuntime that it names: variables are merged by name,
resources by key, and tolerations are the predictor's where it has any. What one of the two lacks, the other
may have; only both together show what will run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from policy.rule import Resource
from policy.values import UNKNOWN, at
from policy.workloads import KSERVE, MODEL_FIELDS, Container, Pod, containers, is_runtime, is_server, pods


@dataclass(frozen=True)
class ServedModel:
    """A model server's container as it will be.

    resource, path: what to change, in messages: the InferenceService's model, or the container of a runtime
        that nothing in the stack uses.
    runtime: the ServingRuntime, None where it is not in the stack.
    """

    resource: Resource
    path: str
    container: dict[str, Any]
    tolerations: Any
    runtime: Resource | None


def served_models(resources: Sequence[Resource]) -> Iterator[ServedModel]:
    """Yield each model with its runtime, then the runtimes that nothing in the stack uses."""
    runtimes = [resource for resource in resources if is_runtime(resource)]
    services = [r for r in resources if r.group == KSERVE and r.kind == "InferenceService" and not r.is_patch]
    used: set[int] = set()
    for service, pod, model in _models(services):
        name = model.body.get("runtime")
        if name is UNKNOWN:
            continue
        runtime = _runtime(runtimes, name, service.at("metadata", "namespace"))
        if runtime is None:
            yield _merge(service, pod, model, None, None)
        else:
            used.add(id(runtime))
            server = next(_servers(runtime), None)
            if server is not None:  # else it is not known yet
                yield _merge(service, pod, model, runtime, server)
    if any(_may_use_any_runtime(service) for service in services):
        return
    for runtime in runtimes:
        if id(runtime) not in used and not runtime.is_patch:
            for pod, container in _servers(runtime):
                tolerations = pod.spec.get("tolerations")
                yield ServedModel(runtime, container.path, container.body, tolerations, runtime)


def _models(services: Sequence[Resource]) -> Iterator[tuple[Resource, Pod, Container]]:
    for service in services:
        for pod in pods(service):
            for container in containers(pod):
                if container.is_model:
                    yield service, pod, container


def _may_use_any_runtime(service: Resource) -> bool:
    """Tell whether it is not known yet which runtimes a service uses."""
    models = [service.at("spec", "predictor", field) for field in MODEL_FIELDS]
    return any(model is UNKNOWN or at(model, "runtime") is UNKNOWN for model in models)


def _runtime(runtimes: Sequence[Resource], name: Any, namespace: Any) -> Resource | None:
    """Find the runtime by name: of the service's namespace before those of the cluster."""
    if not isinstance(name, str) or not name:
        return None  # KServe will choose one by the model's format
    named = [runtime for runtime in runtimes if runtime.at("metadata", "name") in (name, UNKNOWN)]
    near = [
        runtime
        for runtime in named
        if runtime.kind == "ServingRuntime"
        and (namespace is UNKNOWN or runtime.at("metadata", "namespace") in (namespace, UNKNOWN))
    ]
    far = [runtime for runtime in named if runtime.kind == "ClusterServingRuntime"]
    return next(iter([*near, *far]), None)


def _servers(runtime: Resource) -> Iterator[tuple[Pod, Container]]:
    for pod in pods(runtime):
        for container in containers(pod):
            if is_server(runtime, pod, container):
                yield pod, container


def _merge(
    service: Resource,
    pod: Pod,
    model: Container,
    runtime: Resource | None,
    server: tuple[Pod, Container] | None,
) -> ServedModel:
    base = server[1].body if server else {}
    of_runtime = server[0].spec.get("tolerations") if server else None
    merged = {
        **base,
        **model.body,
        "env": _merge_env(base.get("env"), model.body.get("env")),
        "resources": _merge_maps(base.get("resources"), model.body.get("resources")),
    }
    return ServedModel(service, model.path, merged, pod.spec.get("tolerations") or of_runtime, runtime)


def _merge_env(base: Any, own: Any) -> Any:
    if base is UNKNOWN or own is UNKNOWN:
        return UNKNOWN
    # The last entry of a name counts.
    return [entry for part in (base, own) if isinstance(part, list) for entry in part]


def _merge_maps(base: Any, own: Any) -> Any:
    if base is UNKNOWN or own is UNKNOWN:
        return UNKNOWN
    if not isinstance(base, dict) or not isinstance(own, dict):
        return base if own is None else own
    return {key: _merge_maps(base.get(key), own.get(key)) for key in {**base, **own}}
