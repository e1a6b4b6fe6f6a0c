"""Whether the KServe that is in a cluster serves modelcars: found out before anything relies on it.

With modelcar off, an InferenceService with an oci:// URI passes admission, and its pod fails later, in the
storage initializer. With a user that the pods may not have, the pod fails later too.

The ConfigMap is read here and is no resource of the stack: one that Pulumi reads (`ConfigMap.get`) is stored
with other inputs than a refresh finds, and `pulumi refresh --expect-no-changes` would fail after each `up`.
"""

from __future__ import annotations

from components.cluster import config_maps
from components.cluster.access import Cluster
from components.cluster.kserve_config import CONFIG_MAP, configuration_problems
from components.config.problems import NAMESPACE
from components.config.settings import Settings
from modelcar.errors import InputError, refuse


def require(settings: Settings, mode: str, *, modelcars: bool = True) -> None:
    """Refuse a cluster whose KServe serves no modelcar.

    Args:
        settings: of any model; the cluster's.
        mode: Knative where any model is served so, otherwise Standard.
        modelcars: whether KServe is to put any image into a pod; False where all are image volumes.

    Raises:
        InputError: there is no KServe, modelcar is off, what is said of it cannot work or be understood, or
            the cluster cannot be asked.
    """
    own = settings.kserve
    found = config_maps.read(settings, own.namespace, CONFIG_MAP, "KServe")
    if found is None:
        raise refuse(
            f"ConfigMap {own.namespace}/{CONFIG_MAP}",
            f"is not there: {Cluster.of(settings).name} has no KServe in that namespace",
            allowed="a cluster with KServe",
            fix=f"name the namespace of its controller ({NAMESPACE}:kserve.namespace), or install KServe "
            f"with this stack ({NAMESPACE}:kserve.install true)",
        )
    if problems := configuration_problems(found.get("data"), mode, modelcars=modelcars):
        raise InputError(problems)
