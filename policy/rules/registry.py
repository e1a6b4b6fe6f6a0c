"""Who may read and write the repository with the modelcars."""

from __future__ import annotations

from collections.abc import Iterator

from policy.grants import WIDE_SCOPES, finds_public, grants, is_known, scope
from policy.rule import Config, Finding, Resource, Rule


def _find_wide(resource: Resource, _config: Config) -> Iterator[Finding]:
    if scope(resource) not in WIDE_SCOPES:
        return
    for grant in grants(resource):
        if is_known(grant.role) and grant.role.startswith("roles/artifactregistry."):
            where = WIDE_SCOPES[scope(resource)]
            yield Finding(
                grant.role_path,
                f"{grant.role} on the whole {where}",
                "grant it on the one repository: gcp.artifactregistry.RepositoryIamMember with the same role "
                "and member",
            )


_find_public = finds_public(
    "artifactregistry",
    "roles/artifactregistry.",
    "name who pulls, such as serviceAccount:NODES@PROJECT.iam.gserviceaccount.com",
)


REGISTRY_ROLES = Rule(
    name="registry-roles-per-repository",
    statement="Artifact Registry roles are granted on repositories, not on a project, folder or organization",
    reason="a role on the project holds for every repository in it, also for those made later: who may pull "
    "one model may then pull (or overwrite) all of them",
    find=_find_wide,
)
PRIVATE_REPOSITORY = Rule(
    name="private-repository",
    statement="no repository is open to allUsers or allAuthenticatedUsers",
    reason="everybody on the internet (with a Google account) could pull the weights, on our bill",
    find=_find_public,
    severity="critical",
)
