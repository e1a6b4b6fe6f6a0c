"""`modelcar:deploymentMode Knative` needs Knative Serving: found out before anything is built."""

from __future__ import annotations

from components.cluster.access import Cluster, ClusterError
from components.config.problems import NAMESPACE
from components.config.settings import Settings
from modelcar.errors import refuse


def require(settings: Settings, *, reachable: bool) -> None:
    """Refuse Knative mode on a cluster that has no Knative Serving.

    KServe itself would take the InferenceService, and never make a pod for it.

    Raises:
        InputError: it has none, or it cannot be asked.
    """
    if settings.deployment_mode != "Knative" or settings.kserve.install or not reachable:
        return

    key = f"{NAMESPACE}:deploymentMode"
    fix = "install Knative Serving; or `pulumi config set modelcar:deploymentMode Standard` on a new service"
    try:
        cluster = Cluster.of(settings)
        there = cluster.get("/apis/serving.knative.dev/v1") is not None
    except ClusterError as error:
        found = f"Knative, and the cluster cannot be asked for it: {error}"
        raise refuse(key, found, allowed="a cluster that this machine may ask", fix="try again") from None
    if not there:
        found = f"Knative, and {cluster.name} has no Knative Serving (serving.knative.dev/v1)"
        raise refuse(key, found, allowed="a cluster with Knative Serving, or Standard", fix=fix)
