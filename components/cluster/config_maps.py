"""How a part of the cluster is set, read before anything relies on it."""

from __future__ import annotations

from components.cluster.access import JSON, LOG_IN, Cluster, ClusterError
from components.config.model_spec import ModelSpec
from components.config.problems import NAMESPACE
from modelcar.errors import refuse

#: What switches such looks off.
UNASKED = f"do not look: `pulumi config set --path {NAMESPACE}:kserve.verify false`"


def read(reached: ModelSpec, namespace: str, name: str, part: str) -> JSON | None:
    """Return a ConfigMap; None where there is none.

    Args:
        reached: how the cluster is reached.
        namespace, name: of the ConfigMap.
        part: what it sets, as people call it.

    Raises:
        InputError: the cluster cannot be asked.
    """

    try:
        return Cluster.of(reached).get(f"/api/v1/namespaces/{namespace}/configmaps/{name}")
    except ClusterError as error:
        if error.status == 401:
            allowed, fix = "an account that the cluster knows", f"{LOG_IN}; or {UNASKED}"
        elif error.status == 403:
            allowed = f"an account that may look how {part} is set"
            fix = f"let it get ConfigMap {name} in namespace {namespace}; or {UNASKED}"
        else:
            allowed, fix = "a cluster that this machine may ask", f"try again; or {UNASKED}"
        shown = f"ConfigMap {namespace}/{name}"
        raise refuse(shown, f"cannot be read: {error}", allowed=allowed, fix=fix) from None
