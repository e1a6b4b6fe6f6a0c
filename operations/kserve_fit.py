"""Whether the KServe that is in a cluster serves modelcars: found out before anything relies on it.

With modelcar off, an InferenceService with an oci:// URI passes admission, and its pod fails later, in the
storage initializer. With a user that the pods may not have, the pod fails later too.

The ConfigMap is read here and is no resource of the stack: one that Pulumi reads (`ConfigMap.get`) is stored
with other inputs than a refresh finds, and `pulumi refresh --expect-no-changes` would fail after each `up`.
"""

from __future__ import annotations

from components.kserve_config import CONFIG_MAP, configuration_problems
from components.settings import NAMESPACE, Settings
from modelcar.errors import InputError, refuse


def require(settings: Settings, mode: str) -> None:
    """Refuse a cluster whose KServe serves no modelcar.

    Args:
        settings: of any model; the cluster's.
        mode: Knative where any model is served so, otherwise Standard.

    Raises:
        InputError: there is no KServe, modelcar is off, what is said of it cannot work or be understood, or
            the cluster cannot be asked.
    """
    from operations.cluster import Cluster, ClusterError  # the client of Kubernetes takes a second to load

    own = settings.kserve
    name = f"ConfigMap {own.namespace}/{CONFIG_MAP}"
    unasked = f"do not look: `pulumi config set --path {NAMESPACE}:kserve.verify false`"
    cluster = Cluster.of(settings)
    try:
        found = cluster.get(f"/api/v1/namespaces/{own.namespace}/configmaps/{CONFIG_MAP}")
    except ClusterError as error:
        if error.status in {401, 403}:
            allowed = "an account that may look how KServe is set"
            fix = f"let it get ConfigMap {CONFIG_MAP} in namespace {own.namespace}; or {unasked}"
        else:
            allowed, fix = "a cluster that this machine may ask", f"try again; or {unasked}"
        raise refuse(name, f"cannot be read: {error}", allowed=allowed, fix=fix) from None
    if found is None:
        raise refuse(
            name,
            f"is not there: {cluster.name} has no KServe in that namespace",
            allowed="a cluster with KServe",
            fix=f"name the namespace of its controller ({NAMESPACE}:kserve.namespace), or install KServe "
            f"with this stack ({NAMESPACE}:kserve.install true)",
        )
    if problems := configuration_problems(found.get("data"), mode):
        raise InputError(problems)
