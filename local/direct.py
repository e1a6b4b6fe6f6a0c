"""What no proxy leads to: this machine, and the embedded platform, whose network nothing outside reaches.

NO_PROXY and no_proxy tell it to every program that is started for the platform. Go's (containerd, kubectl,
Pulumi's providers) take names, addresses and networks from either. Python's gRPC reads no_proxy alone, and by
default connects to Pulumi through the proxy.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from local.instance import Instance
from local.plan import SERVICE_CIDR

_NAMES = ("NO_PROXY", "no_proxy")
_HERE = ("localhost", "127.0.0.1", "::1")
#: Services, as the API server and webhooks call each other.
_SERVICES = (SERVICE_CIDR, ".svc", ".cluster.local")


def variables(instance: Instance | None, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return NO_PROXY and no_proxy with the user's own entries and these; nothing where there is no proxy.

    Args:
        instance: the platform; None for a cluster of the user's own.
        environment: what they are added to.
    """
    if not any(name.lower() in {"http_proxy", "https_proxy", "all_proxy"} for name in environment):
        return {}
    told = [entry.strip() for name in _NAMES for entry in environment.get(name, "").split(",")]
    if "*" in told:
        return dict.fromkeys(_NAMES, "*")
    platform = (instance.address, instance.host_address, instance.pod_cidr) if instance else ()
    wanted = (*told, *_HERE, *platform, *(_SERVICES if instance else ()))
    return dict.fromkeys(_NAMES, ",".join(dict.fromkeys(entry for entry in wanted if entry)))


def reach(instance: Instance) -> None:
    """Let this process reach a platform directly, and all that it starts."""
    os.environ.update(variables(instance))
