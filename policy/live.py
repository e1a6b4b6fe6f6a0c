"""Kubernetes objects whose spec this program did not declare: judged as they are in the cluster, or refused.

The provider (pulumi-kubernetes 4) imports a custom resource without its spec: what the engine shows to a
policy before an import has none, and a rule that looks for containers there would find nothing and pass.
Policies of the whole stack get the outputs, which hold the live object.
"""

from __future__ import annotations

from policy.rule import Resource
from policy.workloads import roots


class Declared:
    """Which objects a rule has judged before they were made, by what the program says of them."""

    def __init__(self) -> None:
        self._urns: set[str] = set()

    def note(self, resource: Resource) -> None:
        """Remember whether the inputs hold what rules judge."""
        if missing(resource):
            self._urns.discard(resource.urn)
        else:
            self._urns.add(resource.urn)

    def has(self, urn: str) -> bool:
        """Tell whether an object was judged by its inputs."""
        return urn in self._urns


def missing(resource: Resource) -> tuple[str, ...]:
    """Return the properties that rules judge, where an object has none of them; else nothing."""
    expected = () if resource.is_patch else roots(resource)
    return () if any(resource.at(root) is not None for root in expected) else expected
