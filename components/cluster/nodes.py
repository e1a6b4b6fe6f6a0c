"""What keeps GPU nodes from going, once no model is served.

The cluster autoscaler removes a node when all of its pods may move elsewhere, or need not:
https://cloud.google.com/kubernetes-engine/docs/concepts/cluster-autoscaler#scheduling-and-disruption
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.cluster.access import JSON, Cluster
from components.cluster.pods import pods_of
from components.config.model_spec import ModelSpec

GPU = "nvidia.com/gpu"
SAFE = "cluster-autoscaler.kubernetes.io/safe-to-evict"


@dataclass(frozen=True)
class Holder:
    """A pod that keeps its node. why: in words. fix: what lets the node go."""

    node: str
    pod: str
    why: str
    fix: str


@dataclass(frozen=True)
class Nodes:
    """GPU nodes that are there; pods: of each model, by its key; holders: pods that keep nodes."""

    gpu_nodes: tuple[str, ...]
    pods: Mapping[str, tuple[str, ...]]
    holders: tuple[Holder, ...]


def nodes(cluster: Cluster, models: Sequence[ModelSpec]) -> Nodes:
    """Return the GPU nodes, what keeps each, and the pods of these models.

    Raises:
        ClusterError: the API server went away, or rights are missing.
    """
    listed = (cluster.get("/api/v1/nodes") or {}).get("items") or []
    gpu_nodes = tuple(str(node["metadata"]["name"]) for node in listed if _has_gpu(node))
    own = {
        model.key: tuple(
            str(pod["metadata"]["name"]) for pod in pods_of(cluster, model.namespace, model.service_name)
        )
        for model in models
    }
    budgets = (cluster.get("/apis/policy/v1/poddisruptionbudgets") or {}).get("items") or []
    holders: list[Holder] = []
    for name in gpu_nodes:
        query = f"spec.nodeName={name}"
        here = (cluster.get("/api/v1/pods", fieldSelector=query) or {}).get("items") or []
        holders += [holder for pod in here if (holder := holder_of(pod, name, budgets))]
    return Nodes(gpu_nodes, own, tuple(holders))


def _has_gpu(node: JSON) -> bool:
    count = str((node["status"].get("allocatable") or {}).get(GPU, "0"))
    return count not in {"", "0"}


def holder_of(pod: JSON, node: str, budgets: list[JSON]) -> Holder | None:
    """Return why a pod keeps its node; None where it does not."""
    metadata, spec = pod["metadata"], pod["spec"]
    name = f"{metadata['namespace']}/{metadata['name']}"
    annotations: Mapping[str, str] = metadata.get("annotations") or {}
    owners = metadata.get("ownerReferences") or []
    if pod["status"].get("phase") in {"Succeeded", "Failed"} or annotations.get(SAFE) == "true":
        return None
    if any(owner["kind"] in {"DaemonSet", "Node"} for owner in owners):
        return None  # they go with their node
    if _asks_for_gpu(spec):
        return Holder(node, name, "it uses a GPU of the node", "scale its model to zero: make idle")
    if annotations.get(SAFE) == "false":
        return Holder(node, name, f"it says {SAFE}: false", "remove the annotation")
    if not any(owner.get("controller") for owner in owners):
        return Holder(
            node, name, "nobody would make it again elsewhere", "delete it, or give it a controller"
        )
    if blocking := _blocked_by(metadata, budgets):
        return Holder(
            node, name, f"PodDisruptionBudget {blocking} allows no disruption", "raise its replicas"
        )
    if metadata["namespace"] == "kube-system":
        return Holder(
            node,
            name,
            "a system pod; it moves once another node has room for it",
            "keep it off GPU nodes: they carry the taint nvidia.com/gpu, which it should not tolerate",
        )
    return None


def _asks_for_gpu(spec: Mapping[str, Any]) -> bool:
    return any(GPU in ((box.get("resources") or {}).get("limits") or {}) for box in spec["containers"])


def _blocked_by(metadata: Mapping[str, Any], budgets: list[JSON]) -> str | None:
    for budget in budgets:
        same = budget["metadata"]["namespace"] == metadata["namespace"]
        selected = same and selects(budget["spec"].get("selector"), metadata.get("labels") or {})
        if selected and not (budget.get("status") or {}).get("disruptionsAllowed", 0):
            return str(budget["metadata"]["name"])
    return None


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Tell whether Kubernetes' label selector selects an object; one without rules selects all, None nothing.

    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/label-selector/
    """
    if selector is None:
        return False
    wanted: Mapping[str, str] = selector.get("matchLabels") or {}
    rules: list[JSON] = selector.get("matchExpressions") or []
    return wanted.items() <= labels.items() and all(_holds(rule, labels) for rule in rules)


def _holds(rule: JSON, labels: Mapping[str, str]) -> bool:
    key, values = rule["key"], rule.get("values") or []
    match rule["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":  # also of what has no such label
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    return False


def report(found: Nodes) -> Iterator[str]:
    """Yield what a person reads."""
    for model, pods in found.pods.items():
        yield f"pods of {model if len(found.pods) > 1 else 'the model'}: {', '.join(pods) or 'none'}"
    yield f"GPU nodes: {', '.join(found.gpu_nodes) or 'none'}"
    for holder in found.holders:
        yield f"  {holder.node} is kept by {holder.pod}: {holder.why}"
        yield f"    → {holder.fix}"
    free = set(found.gpu_nodes) - {holder.node for holder in found.holders}
    if free:
        yield f"nothing keeps {', '.join(sorted(free))}: the autoscaler removes it after about ten minutes"


def document(found: Nodes) -> dict[str, Any]:
    """Return the same for programs."""
    return {
        "pods": [pod for pods in found.pods.values() for pod in pods],
        "models": {model: list(pods) for model, pods in found.pods.items()},
        "gpuNodes": list(found.gpu_nodes),
        "holders": [vars(holder) for holder in found.holders],
    }
