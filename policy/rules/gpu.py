"""GPU nodes: room for the models' images, and nobody else's pods on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from policy.nodes import nodes
from policy.rule import Config, Finding, Resource, Rule
from policy.served import ServedModel, served_models
from policy.values import UNKNOWN, at, entries, has_unknown, whole_number
from policy.workloads import containers, is_runtime, pods

GPU = "nvidia.com/gpu"
NEED_LABEL = "modelcar-disk-need-gb"
MINIMUM_GB = 200
_TOLERATION = '{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}'


# --- the disk


def _find_small_disk(resource: Resource, config: Config) -> Iterator[Finding]:
    minimum = whole_number(config.get("minimumGb")) or MINIMUM_GB
    for found in nodes(resource):
        if not found.have_gpus:
            continue
        label = found.at("resourceLabels", NEED_LABEL)
        need = whole_number(label)
        if need is None and label is not None and label is not UNKNOWN:
            yield Finding(
                f"{found.path}.resourceLabels[{NEED_LABEL!r}]",
                f"{label!r} is no whole number",
                "write the model's need in GB as digits, such as '350'",
            )
        wanted = max(minimum, need or 0)
        sizes = (found.at(found.disk), found.at("bootDisk", "sizeGb"))
        if UNKNOWN in sizes:
            continue
        size = next((number for size in sizes if (number := whole_number(size)) is not None), None)
        if size is None or size < wanted:
            why = f" (its label {NEED_LABEL})" if wanted > minimum else ""
            yield Finding(
                f"{found.path}.{found.disk}",
                "not set, which is 100 GB" if size is None else f"{size} GB",
                f"set {found.disk} to {wanted}{why} or more",
            )


NODE_DISK = Rule(
    name="gpu-node-disk",
    statement=f"a GPU node's boot disk has {MINIMUM_GB} GB or more, and not less than its model needs",
    reason="the node keeps the server's image and every modelcar that it serves, old and new during a "
    "rollout; a full disk evicts pods, and the model is pulled again. GKE's default is 100 GB",
    find=_find_small_disk,
    severity="medium",
    config_schema={"minimumGb": {"type": "integer", "minimum": 10, "default": MINIMUM_GB}},
)


# --- the taint


def _find_untainted(resource: Resource, _config: Config) -> Iterator[Finding]:
    for found in nodes(resource):
        taints = found.at("taints")
        if (
            not found.have_gpus
            or found.provisioned
            or has_unknown(taints)
            or any(_is_gpu_taint(taint) for _, taint in entries(taints))
        ):
            continue
        yield Finding(
            f"{found.path}.taints",
            f"no taint {GPU} with effect NO_SCHEDULE",
            f'add {{"key": "{GPU}", "value": "present", "effect": "NO_SCHEDULE"}}, which is what GKE itself '
            "would add",
        )


def _is_gpu_taint(taint: Any) -> bool:
    """Tell whether a taint keeps pods away from GPU nodes; one that is partly unknown may be it."""
    return at(taint, "key") in (GPU, UNKNOWN) and at(taint, "effect") in (
        "NO_SCHEDULE",
        "NO_EXECUTE",
        UNKNOWN,
    )


NODE_TAINT = Rule(
    name="gpu-node-taint",
    statement=f"GPU nodes have the taint {GPU}",
    reason="without it, pods that use no GPU fill the most expensive nodes. GKE adds the taint by itself "
    "only where the cluster has a node pool without GPUs at that moment, and never later "
    "(https://cloud.google.com/kubernetes-engine/docs/how-to/gpus), so it is written down",
    find=_find_untainted,
)


# --- the toleration


def _find_intolerant(resource: Resource, _config: Config) -> Iterator[Finding]:
    if is_runtime(resource) or resource.is_patch:
        return  # a runtime's pods are known together with the services that use it: below
    for pod in pods(resource):
        wanting = [c.path for c in containers(pod) if not c.is_model and wants_gpu(c.body.get("resources"))]
        if wanting and not tolerates_gpu(pod.spec.get("tolerations")):
            yield _intolerant(f"{pod.path}.tolerations", wanting[0])


def _find_intolerant_models(resources: Sequence[Resource]) -> Iterator[tuple[Resource, Finding]]:
    for model in served_models(resources):
        if wants_gpu(model.container.get("resources")) and not tolerates_gpu(model.tolerations):
            yield model.resource, _intolerant(_tolerations_path(model), model.path)


def _tolerations_path(model: ServedModel) -> str:
    return "spec.tolerations" if is_runtime(model.resource) else "spec.predictor.tolerations"


def _intolerant(path: str, container: str) -> Finding:
    fix = f"add {_TOLERATION} to {path}"
    return Finding(path, f"none for {GPU}, which {container} requests", fix)


def wants_gpu(resources: Any) -> bool:
    """Tell whether a container's resources have GPUs among them."""
    return any(at(resources, part, GPU) not in (None, UNKNOWN, 0, "0", "") for part in ("requests", "limits"))


def tolerates_gpu(tolerations: Any) -> bool:
    """Tell whether pods with these tolerations may run on nodes with GKE's taint (or it is not known)."""
    if has_unknown(tolerations):
        return True
    return any(_is_gpu_toleration(entry) for _, entry in entries(tolerations))


def _is_gpu_toleration(entry: Any) -> bool:
    key, operator, value, effect = (at(entry, field) for field in ("key", "operator", "value", "effect"))
    if effect not in (None, "", "NoSchedule", UNKNOWN):
        return False
    if operator in ("Exists", UNKNOWN):
        return key in (None, "", GPU, UNKNOWN)
    return key in (GPU, UNKNOWN) and value in ("present", UNKNOWN)


POD_TOLERATION = Rule(
    name="gpu-pod-toleration",
    statement=f"pods that request {GPU} tolerate the taint {GPU}",
    reason="GPU nodes are tainted, and a pod without the toleration stays Pending; GKE's admission plugin "
    "adds it, other clusters do not, and a pair of which one half is invisible breaks unseen",
    find=_find_intolerant,
    judges_specs=True,
    find_in_stack=_find_intolerant_models,
)
