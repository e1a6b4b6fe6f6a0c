"""The DaemonSet that pulls an image to the nodes beforehand."""

from __future__ import annotations

from typing import Any

from components.config.model_spec import ModelSpec
from components.manifests.network import closed_policy
from components.manifests.scheduling import nodes_to_pull_on
from components.manifests.service import CLOSED_POD, RESTRICTED, RESTRICTED_POD

#: Small, and equal for both, so that the pod is no candidate for eviction before others.
_RESOURCES = {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "100m", "memory": "16Mi"}}


def daemon_set_name(settings: ModelSpec) -> str:
    """Return the name of the DaemonSet."""
    return f"{settings.service_name}-pre-pull"


def own_labels(settings: ModelSpec) -> dict[str, str]:
    """Return the labels of its pods, which are none of the InferenceService's."""
    return {"app.kubernetes.io/name": daemon_set_name(settings)}


def network_policy(settings: ModelSpec) -> Any:
    """Return the spec of the NetworkPolicy of its pods: they run both images, and need no connection."""
    return closed_policy(own_labels(settings))


def daemon_set_spec(settings: ModelSpec, storage_uri: str, service_account: str | None = None) -> Any:
    """Return the DaemonSet's spec: the server's image is pulled and left, the modelcar's stays in use."""
    own = own_labels(settings)
    common = {"securityContext": RESTRICTED, "resources": _RESOURCES}
    server = {"name": "server", "image": settings.server_image, "command": ["sh", "-c", "true"], **common}
    # KServe's own sidecar runs these programs too. A node that is told to stop does not wait for it.
    keeper = {
        "name": "modelcar",
        "image": storage_uri.removeprefix("oci://"),
        "args": ["sh", "-c", "trap exit TERM; while :; do sleep 3600 & wait; done"],
        **common,
    }
    account = {"serviceAccountName": service_account} if service_account else {}
    return {
        "selector": {"matchLabels": own},
        # All nodes at once: nothing is served by these pods.
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}},
        "template": {
            "metadata": {"labels": own},
            "spec": {
                **CLOSED_POD,
                "securityContext": RESTRICTED_POD,
                "initContainers": [server],
                "containers": [keeper],
                **nodes_to_pull_on(settings),
                **account,
            },
        },
    }
