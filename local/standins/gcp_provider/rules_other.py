"""Google's rules for registries, identities, APIs and networks that the API descriptions do not hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from local.standins.gcp_provider.findings import Finding, Path, at, given, items_at, number_at, text_at
from local.standins.gcp_provider.names import (
    ACCOUNT_ID,
    COMPUTE_NAME,
    REGION,
    REGISTRY_LOCATION,
    REPOSITORY_ID,
    SERVICE,
    check_form,
    check_labels,
)
from local.standins.gcp_provider.rules_cluster import check_cidr

_DURATION = re.compile(r"\d+(\.\d{1,9})?s|\d+[mhd]")
_EMAIL = r"[\w.+-]+@[A-Za-z0-9.-]+\.[a-z]+"
# https://cloud.google.com/iam/docs/principal-identifiers
_MEMBERS: Final = (
    rf"(user|group):{_EMAIL}",
    rf"serviceAccount:{_EMAIL}",
    # a Kubernetes service account, as workload identity names it
    r"serviceAccount:[a-z0-9.:-]+\.svc\.id\.goog\[[a-z0-9-]+/[a-z0-9.-]+\]",
    r"domain:[A-Za-z0-9.-]+\.[a-z]+",
    r"principal(Set)?://(iam|iam2|cloudresourcemanager|storage)?\.?googleapis\.com/.+",
    r"principal(Set)?://goog/.+",
    r"(projectOwner|projectEditor|projectViewer):[a-z0-9.:-]+",
    r"deleted:.+",
    r"all(Authenticated)?Users",
)
# The number of the project, not its id: https://cloud.google.com/iam/docs/principal-identifiers
_POOL_PROJECT = re.compile(r"principal(?:Set)?://iam\.googleapis\.com/projects/([^/]+)/")
# https://cloud.google.com/iam/docs/roles-overview
_ROLE = re.compile(
    r"roles/[A-Za-z][\w.]*|projects/[a-z0-9.:-]+/roles/[\w.]{3,64}|organizations/\d+/roles/[\w.]{3,64}"
)


def check_service(inputs: dict[str, Any]) -> Iterator[Finding]:
    """Yield what is wrong with an API to enable."""
    yield from check_form(inputs, ("service",), SERVICE)


def check_account(inputs: dict[str, Any]) -> Iterator[Finding]:
    """https://cloud.google.com/iam/docs/reference/rest/v1/projects.serviceAccounts (lengths are in bytes)."""
    yield from check_form(inputs, ("accountId",), ACCOUNT_ID)
    for name, most in (("displayName", 100), ("description", 256)):
        text = text_at(inputs, name)
        if text is not None and len(text.encode()) > most:
            yield Finding((name,), f"at most {most} bytes of UTF-8", "shorten it")


def check_grant(inputs: dict[str, Any]) -> Iterator[Finding]:
    """Yield what is wrong with a role given to a member."""
    member = text_at(inputs, "member")
    if member is not None:
        pool = _POOL_PROJECT.match(member)
        if not any(re.fullmatch(pattern, member) for pattern in _MEMBERS):
            allowed = (
                "user:MAIL, group:MAIL, serviceAccount:MAIL, domain:NAME, principal://… or principalSet://…"
            )
            yield Finding(("member",), allowed, "put the kind of member in front, such as serviceAccount:")
        elif pool and not pool[1].isdigit():
            allowed = "the project's number after projects/ (its id goes into the workload pool's name)"
            yield Finding(("member",), allowed, "take the number from gcp.organizations.get_project")
        elif member.startswith("all") and "repository" not in inputs:
            # The Resource Manager API refuses them: "Members of type allUsers … cannot be set".
            yield Finding(("member",), "somebody in particular for a whole project", "name a member")
    role = text_at(inputs, "role")
    if role is not None and _ROLE.fullmatch(role) is None:
        allowed = "roles/NAME, projects/ID/roles/NAME or organizations/NUMBER/roles/NAME"
        yield Finding(("role",), allowed, "write it like roles/artifactregistry.reader")


def check_repository_grant(inputs: dict[str, Any]) -> Iterator[Finding]:
    """A grant on one repository."""
    yield from check_grant(inputs)
    yield from check_form(inputs, ("location",), REGISTRY_LOCATION)


def check_repository(inputs: dict[str, Any]) -> Iterator[Finding]:
    """https://cloud.google.com/artifact-registry/docs/repositories."""
    yield from check_form(inputs, ("repositoryId",), REPOSITORY_ID)
    yield from check_form(inputs, ("location",), REGISTRY_LOCATION)
    yield from check_labels(inputs, "labels")
    form, mode = text_at(inputs, "format"), at(inputs, "mode") or "STANDARD_REPOSITORY"
    for name, wanted in (("dockerConfig", "DOCKER"), ("mavenConfig", "MAVEN")):
        if given(inputs, name) and form not in (None, wanted):
            yield Finding((name,), f"{name} with format {wanted} only", f"remove {name}")
    for name, wanted in (
        ("remoteRepositoryConfig", "REMOTE_REPOSITORY"),
        ("virtualRepositoryConfig", "VIRTUAL_REPOSITORY"),
    ):
        if given(inputs, name) and mode != wanted:
            yield Finding((name,), f"{name} with mode {wanted} only", f"set mode to {wanted} or remove it")
    if mode == "REMOTE_REPOSITORY" and not given(inputs, "remoteRepositoryConfig"):
        yield Finding(
            ("remoteRepositoryConfig",), "a block, with mode REMOTE_REPOSITORY", "say what it mirrors"
        )
    names = [text_at(inputs, *path, "id") for path, _ in items_at(inputs, "cleanupPolicies")]
    for index, (path, _) in enumerate(items_at(inputs, "cleanupPolicies")):
        if names[index] is not None and names[index] in names[:index]:
            yield Finding((*path, "id"), "an id that no other policy has", "rename the policy")
        yield from _check_policy(inputs, path)


def _check_policy(inputs: Any, path: Path) -> Iterator[Finding]:
    """https://cloud.google.com/artifact-registry/docs/repositories/cleanup-policy."""
    action = text_at(inputs, *path, "action")
    condition, recent = given(inputs, *path, "condition"), given(inputs, *path, "mostRecentVersions")
    if condition == recent:
        allowed = "exactly one of condition and mostRecentVersions"
        yield Finding(path, allowed, "remove one of them" if condition else "add one of them")
    elif recent and action == "DELETE":
        where = (*path, "mostRecentVersions")
        yield Finding(
            where, "mostRecentVersions with action KEEP only", "set action to KEEP, or give a condition"
        )
    if action is None and not given(inputs, *path, "action"):
        yield Finding((*path, "action"), "DELETE, KEEP", "say what the policy does")
    for name in ("olderThan", "newerThan"):
        text = text_at(inputs, *path, "condition", name)
        if text is not None and _DURATION.fullmatch(text) is None:
            allowed = "a duration in seconds such as 2592000s, or 30d, 12h, 90m"
            yield Finding((*path, "condition", name), allowed, "write it in that form")
    tags = at(inputs, *path, "condition", "tagPrefixes")
    if tags and text_at(inputs, *path, "condition", "tagState") not in (None, "TAGGED"):
        where = (*path, "condition", "tagPrefixes")
        yield Finding(where, "tagPrefixes with tagState TAGGED only", "set tagState to TAGGED or remove them")
    count = number_at(inputs, *path, "mostRecentVersions", "keepCount")
    if count is not None and count < 1:
        yield Finding((*path, "mostRecentVersions", "keepCount"), "1 or more", "give how many to keep")


def check_network(inputs: dict[str, Any]) -> Iterator[Finding]:
    """https://cloud.google.com/vpc/docs/mtu."""
    yield from check_form(inputs, ("name",), COMPUTE_NAME)
    mtu = number_at(inputs, "mtu")
    if mtu is not None and not 1300 <= mtu <= 8896:
        yield Finding(("mtu",), "1300 to 8896 bytes", "give a size in that range")


def check_subnetwork(inputs: dict[str, Any]) -> Iterator[Finding]:
    """https://cloud.google.com/vpc/docs/subnets."""
    yield from check_form(inputs, ("name",), COMPUTE_NAME)
    yield from check_form(inputs, ("region",), REGION)
    yield from check_cidr(inputs, ("ipCidrRange",))
    sources = ("ipCidrRange", "reservedInternalRange", "ipCollection")
    if at(inputs, "stackType") != "IPV6_ONLY" and not any(given(inputs, name) for name in sources):
        yield Finding(("ipCidrRange",), "an address range such as 10.0.0.0/20", "give the subnet's range")
    size = re.fullmatch(r"[\d.]+/(\d+)", text_at(inputs, "ipCidrRange") or "")
    if size and not 4 <= int(size[1]) <= 29:
        yield Finding(("ipCidrRange",), "a size from /4 to /29", "give a larger range")
    names = [text_at(inputs, *path, "rangeName") for path, _ in items_at(inputs, "secondaryIpRanges")]
    for index, (path, _) in enumerate(items_at(inputs, "secondaryIpRanges")):
        yield from check_form(inputs, (*path, "rangeName"), COMPUTE_NAME)
        yield from check_cidr(inputs, (*path, "ipCidrRange"))
        if names[index] is not None and names[index] in names[:index]:
            yield Finding((*path, "rangeName"), "a name that no other range has", "rename the range")


def check_router(inputs: dict[str, Any]) -> Iterator[Finding]:
    """https://cloud.google.com/network-connectivity/docs/router/how-to/create-router-vpc-on-premises-network."""
    yield from check_form(inputs, ("name",), COMPUTE_NAME)
    yield from check_form(inputs, ("region",), REGION)
    asn = number_at(inputs, "bgp", "asn")
    private = asn is None or 64512 <= asn <= 65534 or 4200000000 <= asn <= 4294967294 or asn == 16550
    if not private:
        allowed = "a private number: 64512 to 65534, 4200000000 to 4294967294, or 16550"
        yield Finding(("bgp", "asn"), allowed, "choose a private ASN")


def check_router_nat(inputs: dict[str, Any]) -> Iterator[Finding]:
    """https://cloud.google.com/nat/docs/ports-and-addresses."""
    yield from check_form(inputs, ("name",), COMPUTE_NAME)
    yield from check_form(inputs, ("region",), REGION)
    allocation = text_at(inputs, "natIpAllocateOption")
    if allocation == "MANUAL_ONLY" and not given(inputs, "natIps") and not given(inputs, "initialNatIps"):
        yield Finding(("natIps",), "at least one address with MANUAL_ONLY", "give addresses, or AUTO_ONLY")
    if allocation == "AUTO_ONLY" and at(inputs, "natIps"):
        yield Finding(("natIps",), "no addresses with AUTO_ONLY", "remove them, or set MANUAL_ONLY")
    ranges = text_at(inputs, "sourceSubnetworkIpRangesToNat")
    if ranges == "LIST_OF_SUBNETWORKS" and not given(inputs, "subnetworks"):
        yield Finding(("subnetworks",), "at least one subnetwork with LIST_OF_SUBNETWORKS", "list them")
    if ranges not in (None, "LIST_OF_SUBNETWORKS") and at(inputs, "subnetworks"):
        yield Finding(("subnetworks",), "no subnetworks unless LIST_OF_SUBNETWORKS", "remove them")
    for name in ("minPortsPerVm", "maxPortsPerVm"):
        ports = number_at(inputs, name)
        if ports is not None and not 2 <= ports <= 65536:
            yield Finding((name,), "2 to 65536", "give a number in that range")
