"""Who gets which role, out of every kind of Google IAM resource (gcp provider 10.2)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from policy.rule import Config, Finding, Resource
from policy.values import UNKNOWN, at, entries

#: Scopes above a single resource, with the words for messages.
WIDE_SCOPES = {"projects": "project", "folder": "folder", "organizations": "organization"}
PUBLIC = ("allUsers", "allAuthenticatedUsers")
#: Members that are software: accounts, identities of workloads (pods, CI), and all accounts of a project.
#: Pools of a workforce are people: https://cloud.google.com/iam/docs/principal-identifiers
_WORKLOADS = re.compile(
    r"serviceAccount:"
    r"|principal(Set)?://iam\.googleapis\.com/.*/workloadIdentityPools/"
    r"|principalSet://cloudresourcemanager\.googleapis\.com/.*/type/Service(Account|Agent)\b"
)


@dataclass(frozen=True)
class Grant:
    """A role (may be UNKNOWN) for members (known ones only), and the properties that say so."""

    role: Any
    members: tuple[str, ...]
    role_path: str
    members_path: str


def scope(resource: Resource) -> str:
    """Return the module of a gcp resource: `projects`, `artifactregistry`, …; "" for other providers."""
    package, _, rest = resource.type.partition(":")
    return rest.partition("/")[0] if package == "gcp" else ""


def grants(resource: Resource) -> Iterator[Grant]:
    """Yield the grants of an IamMember, IamBinding or IamPolicy resource, whatever it is for."""
    if not scope(resource):
        return
    kind = resource.kind.lower()
    if kind.endswith("iammember"):
        yield Grant(resource.at("role"), _texts([resource.at("member")]), "role", "member")
    elif kind.endswith("iambinding"):
        yield Grant(resource.at("role"), _texts(resource.at("members")), "role", "members")
    elif kind.endswith("iampolicy") and isinstance(policy := resource.at("policyData"), str):
        yield from _in_policy(policy)


def _in_policy(text: str) -> Iterator[Grant]:
    try:
        bindings = at(json.loads(text), "bindings")
    except ValueError:
        return  # the provider refuses it
    for number, binding in entries(bindings):
        path = f"policyData: bindings[{number}]"
        yield Grant(at(binding, "role"), _texts(at(binding, "members")), f"{path}.role", f"{path}.members")


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(value for _, value in entries(values) if isinstance(value, str))


def is_workload(member: str) -> bool:
    """Tell whether a member of a grant is software, whose token can be stolen."""
    return _WORKLOADS.match(member) is not None


def is_known(role: Any) -> bool:
    """Tell whether a role can be compared."""
    return role is not UNKNOWN and isinstance(role, str)


def finds_public(where: str, roles: str, fix: str) -> Callable[[Resource, Config], Iterator[Finding]]:
    """Return a search for grants to everybody on resources of one module, or of its roles on all of them.

    Args:
        where: the module, such as `artifactregistry`.
        roles: what the module's roles begin with; one of them on a project holds for all that is in it.
        fix: what to do instead.
    """

    def find(resource: Resource, _config: Config) -> Iterator[Finding]:
        wide = scope(resource) in WIDE_SCOPES
        if scope(resource) != where and not wide:
            return
        for grant in grants(resource):
            if not wide or (is_known(grant.role) and grant.role.startswith(roles)):
                for member in sorted(set(grant.members) & set(PUBLIC)):
                    yield Finding(grant.members_path, member, fix)

    return find
