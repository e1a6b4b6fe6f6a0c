"""Whether the nodes with GPUs have a label that tells it: what is pulled ahead finds them by that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.cluster.access import Cluster, ClusterError
from components.cluster.room import gpus_in
from components.config.model_spec import ModelSpec
from components.config.problems import NAMESPACE
from components.manifests.scheduling import GPU_LABELS, finds_gpus_by_label
from modelcar.errors import InputError, refuse

#: Nodes that are named; more would say the same.
SHOWN = 3


def require(settings: ModelSpec) -> None:
    """Refuse a cluster with GPUs on nodes that nothing would be pulled to.

    A cluster that cannot be asked for its nodes, and one whose pool has none now, is taken as it is.

    Args:
        settings: of a model with `prePull`; how the cluster is reached.

    Raises:
        InputError: a node with GPUs has no label that says so, and the model names no nodes.
    """
    if not finds_gpus_by_label(settings):
        return
    try:
        listed = (Cluster.of(settings).get("/api/v1/nodes") or {}).get("items") or []
    except (InputError, ClusterError):
        return
    lacking = [
        str(node["metadata"]["name"])
        for node in listed
        if gpus_in((node.get("status") or {}).get("capacity")) and not _is_labelled(node)
    ]
    if not lacking:
        return
    labels = ", ".join(one["key"] for one in GPU_LABELS)
    more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
    raise refuse(
        f"{NAMESPACE}:prePull",
        f"true, and no label of {', '.join(lacking[:SHOWN])}{more} says that the node has GPUs: nothing "
        "would be pulled there",
        allowed=f"nodes with GPUs that have one of {labels}, which NVIDIA's GPU operator and GKE set; or "
        "modelcar:scheduling with a nodeSelector or nodeAffinity for them",
        fix=f"kubectl label node {lacking[0]} {GPU_LABELS[0]['key']}=true; or name the nodes in "
        "modelcar:scheduling (docs/scheduling.md), which makes new pods",
    )


def _is_labelled(node: Mapping[str, Any]) -> bool:
    labels = node["metadata"].get("labels") or {}
    return any(_meets(labels.get(one["key"]), one) for one in GPU_LABELS)


def _meets(value: str | None, rule: Mapping[str, Any]) -> bool:
    if value is None:
        return False
    if rule["operator"] == "Gt":
        return value.isdecimal() and int(value) > int(rule["values"][0])
    return rule["operator"] == "Exists" or value in rule["values"]
