"""Load balancers are for known networks."""

from __future__ import annotations

from collections.abc import Iterator

from policy.rule import Config, Finding, Resource, Rule
from policy.values import UNKNOWN, entries, has_unknown

#: The annotation of today, and the one before GKE 1.17.
_INTERNAL = ("networking.gke.io/load-balancer-type", "cloud.google.com/load-balancer-type")
_EVERYBODY = ("0.0.0.0/0", "::/0")


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
    for _, found in entries(ranges):
        if found in _EVERYBODY:
            yield Finding(path, str(found), fix)
    if not has_unknown(ranges) and not ranges and not resource.is_patch:
        yield Finding(path, "not set, which is everybody", fix)


LIMITED_LOAD_BALANCER = Rule(
    name="limited-load-balancer",
    statement="a Service of type LoadBalancer is internal or says which networks may call it",
    reason="it gets a public address, and neither vLLM nor KServe's raw mode asks callers who they are",
    find=_find,
)
