"""Whether a cluster has KEDA, which `modelcar:autoscaling` needs: asked before anything relies on it."""

from __future__ import annotations

from components.cluster.access import Cluster, ClusterError
from components.config.model_spec import ModelSpec
from components.config.problems import NAMESPACE
from components.manifests.autoscaling import API_VERSION, KIND
from modelcar.errors import refuse


def require(settings: ModelSpec) -> None:
    """Refuse a cluster that knows no ScaledObject; one that cannot be asked is the provider's to tell of.

    Args:
        settings: of any model that has `autoscaling`; how the cluster is reached.

    Raises:
        InputError: it does not.
    """

    cluster = Cluster.of(settings)
    try:
        found = cluster.get(f"/apis/{API_VERSION}")
    except ClusterError:
        return
    kinds = {resource["kind"] for resource in (found or {}).get("resources") or []}
    if KIND not in kinds:
        raise refuse(
            f"{NAMESPACE}:autoscaling",
            f"set, and {cluster.name} knows no {KIND} ({API_VERSION})",
            allowed="a cluster with KEDA",
            fix="install it (https://keda.sh/docs/latest/deploy/), or remove the setting",
        )
