"""Service accounts: one for the nodes, with narrow roles, not public and without keys."""

from __future__ import annotations

import re
from collections.abc import Iterator

from policy.grants import PUBLIC, WIDE_SCOPES, finds_public, grants, is_workload, scope
from policy.nodes import nodes
from policy.rule import Config, Finding, Resource, Rule
from policy.values import UNKNOWN

_COMPUTE_DEFAULT = re.compile(r"(projects/-/serviceAccounts/)?\d+-compute@developer\.gserviceaccount\.com")
_BASIC_ROLES = ("roles/owner", "roles/editor")
_KEYS = {
    "gcp:serviceaccount/key:Key": "a service account key",
    "gcp:storage/hmacKey:HmacKey": "a key for Cloud Storage in a service account's name",
}


def _find_default(resource: Resource, _config: Config) -> Iterator[Finding]:
    for found in nodes(resource):
        account = found.at("serviceAccount")
        if account is UNKNOWN:
            continue
        if account in (None, "", "default") or _COMPUTE_DEFAULT.fullmatch(str(account)):
            yield Finding(
                f"{found.path}.serviceAccount",
                "not set, which is the Compute Engine default account" if not account else str(account),
                "make a gcp.serviceaccount.Account for the nodes (roles/container.defaultNodeServiceAccount "
                "on the project, roles/artifactregistry.reader on the repository); name its email here",
            )


def _find_basic_roles(resource: Resource, _config: Config) -> Iterator[Finding]:
    if scope(resource) not in WIDE_SCOPES:
        return
    for grant in grants(resource):
        refused = [member for member in grant.members if member in PUBLIC or is_workload(member)]
        if grant.role in _BASIC_ROLES and refused:
            yield Finding(
                grant.role_path,
                f"{grant.role} for {', '.join(refused)}",
                "grant the predefined roles that the work needs, each on the narrowest resource, to a member "
                "that does it",
            )


_find_public = finds_public(
    "serviceaccount",
    "roles/iam.",
    "name who may use the account, such as "
    "serviceAccount:PROJECT.svc.id.goog[NAMESPACE/NAME] for Workload Identity",
)


def _find_keys(resource: Resource, _config: Config) -> Iterator[Finding]:
    if resource.type in _KEYS:
        yield Finding(
            "",
            _KEYS[resource.type],
            "remove it; pods use Workload Identity Federation for GKE, nodes their own account, CI Workload "
            "Identity Federation",
        )


NODE_ACCOUNT = Rule(
    name="node-service-account",
    statement="nodes run as a service account of their own, not as the Compute Engine default account",
    reason="the default account is shared by the whole project and often has roles/editor, and every pod "
    "without Workload Identity can take its token "
    "(https://cloud.google.com/kubernetes-engine/docs/how-to/hardening-your-cluster)",
    find=_find_default,
)
NARROW_ROLES = Rule(
    name="narrow-service-account-roles",
    statement="no service account, identity of a workload, or everybody gets roles/owner or roles/editor",
    reason="these basic roles hold thousands of permissions in every service: one stolen token of a pod or a "
    "node would be enough to change or delete everything",
    find=_find_basic_roles,
    severity="critical",
)
PRIVATE_ACCOUNT = Rule(
    name="private-service-account",
    statement="no service account can be used by allUsers or allAuthenticatedUsers",
    reason="everybody with a Google account could act as it, with all that it may do",
    find=_find_public,
    severity="critical",
)
NO_STATIC_KEYS = Rule(
    name="no-static-keys",
    statement="no service account keys are made",
    reason="a key is valid until somebody deletes it, works from anywhere, and its private half lies in the "
    "stack's state (https://cloud.google.com/iam/docs/best-practices-for-managing-service-account-keys)",
    find=_find_keys,
    severity="critical",
)
