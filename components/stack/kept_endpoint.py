"""A cluster that the stack made keeps the endpoint of its control plane: its DNS name, or its address."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from components.config.google import GoogleSettings
from components.config.problems import problem
from components.config.stack import Stack
from modelcar.errors import Problem

_WHERE = "docs/google-cloud.md, 'Who reaches the control plane of a created cluster'"


def problems(stack: Stack, outputs: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the problem of a created cluster that would be reached by its other endpoint.

    Google makes the one and closes the other in the same `up`. Until then nothing in the cluster can be asked
    for by the new one, and a preview has no host for it.

    Args:
        stack: its settings.
        outputs: of the last run; versions before 0.4.0 did not tell the endpoint.
    """
    google, shared = stack.google, stack.shared
    if google is None or not google.cluster.create:
        return
    if not shared.uses_cluster or shared.kubeconfig or shared.kube_context:
        return  # no provider has this host
    cluster, before = google.cluster, outputs.get("clusterEndpoint")
    networks = cluster.authorized_networks
    if before not in ("dns", "ip") or before == ("ip" if networks else "dns"):
        return
    if not _same_cluster(google, outputs):
        return  # made anew anyway, as the head of the preview says
    if networks:
        value = f"{', '.join(networks)}; {cluster.name} was made without, and is reached by its DNS name"
        other, allowed = "address", "no network, as it was made with"
        fix = f"pulumi config rm --path modelcar:google.cluster.authorizedNetworks; {_elsewhere('with them')}"
    else:
        value = f"not set; {cluster.name} was made with some, and is reached by its address"
        other, allowed = "DNS name", "one network or more, as it was made with; which ones may change"
        fix = f"set the networks again; {_elsewhere('without')}"
    yield problem(
        "google.cluster.authorizedNetworks",
        f"{value}. Its {other} is not there before `up` makes it, and so Pulumi can ask nothing in it",
        allowed,
        fix,
    )


def _elsewhere(how: str) -> str:
    return f"for a cluster {how}, deploy a new stack with another cluster.name ({_WHERE})"


def _same_cluster(google: GoogleSettings, outputs: Mapping[str, Any]) -> bool:
    if (outputs.get("clusterName"), outputs.get("clusterLocation")) != (google.cluster.name, google.location):
        return False
    made = (outputs.get("googleMadeWith") or {}).get("cluster") or {}
    now = {"project": google.project, "region": google.region}
    return all(made.get(name, value) == value for name, value in now.items())
