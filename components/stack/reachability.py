"""Find out that the registry or the API server is out of reach before anything is built.

Without this, a build of many gigabytes runs to its end before its push fails, or is pushed before the
service is refused. A preview builds nothing, so it asks nobody and works without network.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import yaml

from components.cluster import kubeconfig
from components.config.problems import NAMESPACE
from components.config.settings import Settings
from modelcar.errors import InputError, Problem
from modelcar.proxies import proxy_for

#: Seconds for one connection.
TIMEOUT = 5.0
#: Gets the token for a cluster of Google's (components/google/cluster.py: kubeconfig).
AUTH_PLUGIN = "gke-gcloud-auth-plugin"

_PORTS = {"http": 80, "https": 443}


def check(settings: Settings, *, required: bool, pushes: bool = True) -> bool:
    """Tell whether the cluster can be asked what it runs.

    Args:
        required: in an `up`, where registry and API server have to be there. False in a preview, which builds
            nothing and works without network.
        pushes: whether any image is pushed to the registry.

    Raises:
        InputError: as `require`.
    """
    default = os.environ.get("KUBECONFIG", "")
    if required and settings.check_reachable:
        require(settings, default, pushes=pushes)
    if not settings.uses_cluster:
        return False
    if settings.google and _from_google(settings):
        # Its address is known to Google only; one that this stack creates has nothing in it yet.
        return required and not settings.google.cluster.create
    return required or _api_server(settings, default) is None


def made_before(settings: Settings, outputs: Mapping[str, Any]) -> bool:
    """Tell whether an earlier run made the stack's own cluster, by whose kubeconfig it can be asked.

    Args:
        outputs: of the last run.
    """
    google = settings.google
    if google is None or not google.cluster.create or not _from_google(settings):
        return False
    there = (outputs.get("clusterName"), outputs.get("clusterLocation"))
    return settings.uses_cluster and there == (google.cluster.name, google.location)


def doubts(settings: Settings, outputs: Mapping[str, Any]) -> Iterator[str]:
    """Yield why Pulumi does not ask a deployed cluster of Google's, and says nothing of it.

    Its Kubernetes provider takes a cluster that it gets no token for as one out of reach, and previews what
    is declared as it is.

    Args:
        outputs: of the last run.
    """
    cluster = outputs.get("clusterName")
    if cluster and settings.uses_cluster and _from_google(settings) and not shutil.which(AUTH_PLUGIN):
        yield (
            f"{AUTH_PLUGIN} is not on PATH, so cluster {cluster} is not asked: a preview shows changes that "
            f"it would refuse as if they worked (gcloud components install {AUTH_PLUGIN})"
        )


def _from_google(settings: Settings) -> bool:
    return settings.google is not None and not (settings.kubeconfig or settings.kube_context)


def require(settings: Settings, kubeconfig_default: str | None = None, *, pushes: bool = True) -> None:
    """Connect to the registry and to the API server once each.

    Args:
        kubeconfig_default: stands for KUBECONFIG, for tests.
        pushes: whether any image is pushed to the registry.

    Raises:
        InputError: one or both do not accept a connection, or there is no such context.
    """
    default = kubeconfig_default if kubeconfig_default is not None else os.environ.get("KUBECONFIG", "")
    problems = [
        _registry(settings) if pushes else None,
        _api_server(settings, default) if settings.uses_cluster else None,
    ]
    found = [problem for problem in problems if problem is not None]
    if found:
        raise InputError(found)


def _registry(settings: Settings) -> Problem | None:
    host, _, port = settings.registry.partition("/")[0].partition(":")
    scheme = "http" if settings.registry_insecure else "https"
    # Docker Hub's name in references is not the name of its registry.
    host = "registry-1.docker.io" if host in {"docker.io", "index.docker.io"} else host
    reason = refusal(scheme, host, int(port) if port else _PORTS[scheme])
    if reason is None:
        return None
    return Problem(
        f"{NAMESPACE}:registry",
        f"{settings.registry}: {host} cannot be reached ({reason})",
        "a registry that accepts connections from here, for the push",
        "start it or check its name and the network; where only the builder can reach it, "
        f"`pulumi config set {NAMESPACE}:checkReachable false`",
    )


def _api_server(settings: Settings, default: str) -> Problem | None:
    if _from_google(settings):
        return None
    key = f"{NAMESPACE}:kubeContext" if settings.kube_context else f"{NAMESPACE}:kubeconfig"
    try:
        config = kubeconfig.read(settings.kubeconfig, default)
    except (OSError, yaml.YAMLError) as error:
        return Problem(
            f"{NAMESPACE}:kubeconfig",
            f"cannot be read: {str(error).splitlines()[0]}",
            "the path of a kubeconfig, or its text",
            "correct the path, or log in to the cluster again",
        )
    if config is None:
        return None  # inside a cluster, or none at all: the provider says so
    name = settings.kube_context or config.get("current-context")
    contexts = kubeconfig.named(config, "contexts", "context")
    if name not in contexts:
        allowed = "one of " + (", ".join(sorted(contexts)) or "the contexts of a kubeconfig, which has none")
        return Problem(
            key,
            f"there is no context {name!r} in the kubeconfig"
            if name
            else "the kubeconfig has no current context",
            allowed,
            "choose one of these, or log in",
        )
    clusters = kubeconfig.named(config, "clusters", "cluster")
    cluster = clusters.get(str(contexts[name].get("cluster", "")), {})
    try:
        server = urlsplit(str(cluster.get("server", "")))
        port = server.port or _PORTS.get(server.scheme, 443)
    except ValueError as error:
        fix = "correct it, or log in to the cluster again"
        return Problem(key, f"its server is no address: {error}", "https://HOST[:PORT]", fix)
    if not server.hostname or "proxy-url" in cluster:
        return None
    reason = refusal(server.scheme, server.hostname, port)
    if reason is None:
        return None
    return Problem(
        key,
        f"the API server {server.geturl()} cannot be reached ({reason})",
        "a cluster that accepts connections from here",
        "start it (`make platform` for the embedded one), or choose another context",
    )


def refusal(scheme: str, host: str, port: int) -> str | None:
    """Return why no connection can be made; None where it can, or where a proxy stands between.

    Args:
        scheme: http or https, by which a proxy is chosen.
    """
    if proxy_for(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"):
        return None
    try:
        socket.create_connection((host, port), TIMEOUT).close()
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__
    return None
