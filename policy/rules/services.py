"""Load balancers are for known networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_network

from components.config.fields import are_everything
from policy.rule import Config, Finding, Resource, Rule
from policy.values import UNKNOWN, entries, has_unknown

#: The annotation of today, and the one before GKE 1.17.
_INTERNAL = ("networking.gke.io/load-balancer-type", "cloud.google.com/load-balancer-type")


def _everybody(ranges: list[str]) -> str | None:
    """Return the ranges of a list that are all addresses, alone or together; None where they are not."""
    networks: dict[int, list[str]] = {4: [], 6: []}
    for text in ranges:
        with suppress(ValueError):
            network = ip_network(text, strict=False)
            networks[network.version].append(str(network))
    for same in networks.values():
        if are_everything(same):
            return next((one for one in same if are_everything([one])), ", ".join(same))
    return None


def _find(resource: Resource, _config: Config) -> Iterator[Finding]:
    if (resource.group, resource.kind) != ("core", "Service") or resource.at(
        "spec", "type"
    ) != "LoadBalancer":
        return
    if any(
        (value := resource.at("metadata", "annotations", name)) is UNKNOWN or str(value).lower() == "internal"
        for name in _INTERNAL
    ):
        return
    path = "spec.loadBalancerSourceRanges"
    ranges = resource.at("spec", "loadBalancerSourceRanges")
    fix = (
        f'set {path} to your networks, or the annotation {_INTERNAL[0]}: "Internal", or use a ClusterIP '
        "service behind a gateway that asks who calls"
    )
    if found := _everybody([str(one) for _, one in entries(ranges) if one is not UNKNOWN]):
        yield Finding(path, found, fix)
    if not has_unknown(ranges) and not ranges and not resource.is_patch:
        yield Finding(path, "not set, which is everybody", fix)


LIMITED_LOAD_BALANCER = Rule(
    name="limited-load-balancer",
    statement="a Service of type LoadBalancer is internal or says which networks may call it",
    reason="it gets a public address, and neither vLLM nor KServe's raw mode asks callers who they are",
    find=_find,
)
