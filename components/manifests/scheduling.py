"""Where pods run: node selectors, affinity, tolerations, spread."""

from __future__ import annotations

from typing import Any

from components.config.model_spec import ModelSpec
from components.config.scheduling import POOL_LABEL, NodeRequirement, Toleration
from components.manifests.network import SERVICE_LABEL

#: GKE taints nodes with GPUs with nvidia.com/gpu=present:NoSchedule; pods with GPUs tolerate it.
GPU_TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}

#: Labels of nodes with GPUs; one is enough. NVIDIA's GPU operator sets the first, its GPU feature discovery
#: the second, GKE the third.
#: https://docs.nvidia.com/datacenter/cloud-native/gpu-operator/latest/getting-started.html
#: https://github.com/NVIDIA/k8s-device-plugin/tree/main/docs/gpu-feature-discovery
#: https://cloud.google.com/kubernetes-engine/docs/how-to/gpus
GPU_LABELS: tuple[dict[str, Any], ...] = (
    {"key": "nvidia.com/gpu.present", "operator": "In", "values": ["true"]},
    {"key": "nvidia.com/gpu.count", "operator": "Gt", "values": ["0"]},
    {"key": "cloud.google.com/gke-accelerator", "operator": "Exists"},
)


def nodes(settings: ModelSpec) -> dict[str, Any]:
    """Return the fields of a pod that say which nodes can take it; those that pull for a model have them too.

    The model's own pool on Google Cloud is among them, whose disk was computed for it.
    """
    said = settings.scheduling
    found: dict[str, Any] = {}
    selector = {**said.node_selector}
    if settings.pool_name is not None:
        selector[POOL_LABEL] = settings.pool_name
    if selector:
        found["nodeSelector"] = selector
    if said.node_affinity:
        rules = [_requirement(entry) for entry in said.node_affinity]
        required = {"nodeSelectorTerms": [{"matchExpressions": rules}]}
        found["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    tolerated = [_toleration(entry) for entry in said.tolerations]
    if settings.gpu_count and GPU_TOLERATION not in tolerated:
        tolerated.insert(0, {**GPU_TOLERATION})
    if tolerated:
        found["tolerations"] = tolerated
    if said.runtime_class_name:
        found["runtimeClassName"] = said.runtime_class_name
    return found


def nodes_to_pull_on(settings: ModelSpec) -> dict[str, Any]:
    """Return the same for pods that only pull: they ask for no GPU, which would keep them on such nodes."""
    found = nodes(settings)
    if finds_gpus_by_label(settings):
        terms = [{"matchExpressions": [{**one}]} for one in GPU_LABELS]  # any of them
        required = {"nodeSelectorTerms": terms}
        found["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    return found


def finds_gpus_by_label(settings: ModelSpec) -> bool:
    """Tell whether nothing but its GPUs says which nodes take a model's pods."""
    said = settings.scheduling
    named = settings.pool_name is not None or said.node_selector or said.node_affinity
    return settings.gpu_count > 0 and not named


def pods(settings: ModelSpec) -> dict[str, Any]:
    """Return the fields of a model's predictor (KServe 0.19, PodSpec and ComponentExtensionSpec).

    They stand in the predictor whatever the placement: KServe puts its tolerations, selector and affinity in
    place of a ServingRuntime's, which has no other of these fields (MergePodSpec).
    """
    said = settings.scheduling
    found = nodes(settings)
    if said.topology_spread:
        own = {"matchLabels": {SERVICE_LABEL: settings.service_name}}
        found["topologySpreadConstraints"] = [
            {
                "topologyKey": entry.topology_key,
                "maxSkew": entry.max_skew,
                "whenUnsatisfiable": entry.when_unsatisfiable,
                "labelSelector": own,
            }
            for entry in said.topology_spread
        ]
    if said.priority_class_name:
        found["priorityClassName"] = said.priority_class_name
    if said.scheduler_name:
        found["schedulerName"] = said.scheduler_name
    if said.pod_labels:
        found["labels"] = {**said.pod_labels}
    if said.pod_annotations:
        found["annotations"] = {**said.pod_annotations}
    return found


def _toleration(said: Toleration) -> dict[str, Any]:
    found: dict[str, Any] = {"key": said.key, "operator": said.operator, "value": said.value}
    found |= {"effect": said.effect, "tolerationSeconds": said.toleration_seconds}
    return {key: value for key, value in found.items() if value is not None}


def _requirement(said: NodeRequirement) -> dict[str, Any]:
    values = {"values": list(said.values)} if said.values else {}
    return {"key": said.key, "operator": said.operator, **values}
