"""Every judgement of a resource's inputs, put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from local.standins.gcp_provider import rules_cluster, rules_nodes, rules_other
from local.standins.gcp_provider.discovery import check_against_api
from local.standins.gcp_provider.findings import Finding, given, text_at
from local.standins.gcp_provider.names import PROJECT, check_form
from local.standins.gcp_provider.resources import Kind
from local.standins.gcp_provider.settings import Settings
from local.standins.gcp_provider.type_check import check_object
from local.standins.properties import plain

_RULES: Final[dict[str, Callable[[dict[str, Any]], Iterator[Finding]]]] = {
    "gcp:artifactregistry/repository:Repository": rules_other.check_repository,
    "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember": rules_other.check_repository_grant,
    "gcp:compute/network:Network": rules_other.check_network,
    "gcp:compute/router:Router": rules_other.check_router,
    "gcp:compute/routerNat:RouterNat": rules_other.check_router_nat,
    "gcp:compute/subnetwork:Subnetwork": rules_other.check_subnetwork,
    "gcp:container/cluster:Cluster": rules_cluster.check_cluster,
    "gcp:container/nodePool:NodePool": rules_nodes.check_node_pool,
    "gcp:projects/iAMMember:IAMMember": rules_other.check_grant,
    "gcp:projects/service:Service": rules_other.check_service,
    "gcp:serviceaccount/account:Account": rules_other.check_account,
}
# The provider's own property, which no API has.
_DELETION_POLICIES: Final = ("DELETE", "PREVENT", "ABANDON")
_FALLBACKS: Final = {
    "location": "gcp:region or gcp:zone",
    "region": "gcp:region",
}


def check_inputs(kind: Kind, inputs: dict[str, Any], settings: Settings) -> list[Finding]:
    """Return everything that is wrong with decoded inputs; of several findings on a path, the first."""
    found: dict[object, Finding] = {}
    for finding in _findings(kind, inputs, settings):
        found.setdefault(finding.path, finding)
    return list(found.values())


def _findings(kind: Kind, inputs: dict[str, Any], settings: Settings) -> Iterator[Finding]:
    yield from check_object(inputs, kind.inputs())
    resolved = kind.resolve(plain(inputs), settings)
    if resolved.get("project") is None:
        yield Finding(("project",), PROJECT.allowed, f"pulumi config set gcp:project {PROJECT.example}")
    if kind.place and resolved.get(kind.place) is None:
        fix = f"give {kind.place}, or pulumi config set {_FALLBACKS[kind.place].split(' ')[0]} europe-west4"
        yield Finding((kind.place,), f"a value here or in {_FALLBACKS[kind.place]}", fix)
    yield from check_form(resolved, ("project",), PROJECT)
    # Rules before the API description: where both speak, a rule knows the better words.
    yield from _RULES[kind.token](resolved)
    yield from check_against_api(kind.token, inputs)
    policy = text_at(inputs, "deletionPolicy")
    if given(inputs, "deletionPolicy") and policy is not None and policy not in _DELETION_POLICIES:
        yield Finding(("deletionPolicy",), ", ".join(_DELETION_POLICIES), "choose one of these")
