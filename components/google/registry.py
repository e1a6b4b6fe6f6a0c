"""The Artifact Registry repository of a stack's modelcars, and who may read it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import pulumi
import pulumi_gcp as gcp

from components.config.google import GoogleSettings
from components.engine.options import child, imported

#: Read images of one repository: https://cloud.google.com/artifact-registry/docs/access-control
READER = "roles/artifactregistry.reader"
#: What Google changes of a repository in place.
CHANGEABLE = (
    *("cleanupPolicies", "cleanupPolicyDryRun", "description"),
    *("dockerConfig", "labels", "vulnerabilityScanningConfig"),
)
DAY = 24 * 60 * 60


@dataclass(frozen=True)
class ModelRegistryArgs:
    """What the repository is made of.

    google: the stack's settings. labels: for costs.
    reader: e-mail of the nodes' service account.
    imports: kinds that are there already (`importExisting`).
    """

    google: GoogleSettings
    reader: pulumi.Input[str]
    labels: dict[str, str]
    imports: Collection[str] = ()


class ModelRegistry(pulumi.ComponentResource):
    """A Docker repository for modelcars, readable by the nodes that serve them, and by this grant alone.

    Tags are immutable, so a tag can never leave the digest that it was given to; every modelcar has a tag;
    and the only images that a cleanup deletes are those without one. So no cleanup can delete an image that
    some stack still serves (https://cloud.google.com/artifact-registry/docs/repositories/cleanup-policy).

    Outputs:
        path: REGION-docker.pkg.dev/PROJECT/REPOSITORY, what images are named by; known once it may be read.
    """

    path: pulumi.Output[str]

    def __init__(
        self, name: str, args: ModelRegistryArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Declare the repository, or adopt it, and the grant on it."""
        super().__init__("modelcar:google:ModelRegistry", name, None, opts)
        google = args.google
        place = f"projects/{google.project}/locations/{google.region}/repositories/{google.repository.name}"
        repository: gcp.artifactregistry.Repository
        if google.repository.existing:
            repository = gcp.artifactregistry.Repository.get(
                name, place, opts=pulumi.ResourceOptions(parent=self)
            )
        else:
            repository = gcp.artifactregistry.Repository(
                name,
                repository_inputs(google, args.labels),
                opts=imported(
                    pulumi.ResourceOptions.merge(
                        child(self, opts), pulumi.ResourceOptions(protect=google.protect)
                    ),
                    "Repository",
                    args.imports,
                    place,
                    CHANGEABLE,
                ),
            )
        reader = gcp.artifactregistry.RepositoryIamMember(
            f"{name}-reader",
            project=google.project,
            location=google.region,
            repository=repository.repository_id,
            role=READER,
            member=pulumi.Output.concat("serviceAccount:", args.reader),
            opts=imported(
                child(self, opts),
                "RepositoryIamMember",
                args.imports,
                f"{place} {READER} serviceAccount:{google.nodes.service_account}",
                (),
            ),
        )
        # Tied to the grant: whoever gets the path can count on nodes being able to pull.
        self.path = reader.id.apply(lambda _: google.registry)
        self.register_outputs({"path": self.path})


def repository_inputs(google: GoogleSettings, labels: dict[str, str]) -> gcp.artifactregistry.RepositoryArgs:
    """Return the inputs of the repository."""
    registry = gcp.artifactregistry
    policy, condition = registry.RepositoryCleanupPolicyArgs, registry.RepositoryCleanupPolicyConditionArgs
    untagged = condition(tag_state="UNTAGGED", older_than=f"{google.repository.untagged_days * DAY}s")
    scanning = "INHERITED" if google.repository.vulnerability_scanning else "DISABLED"
    return registry.RepositoryArgs(
        project=google.project,
        location=google.region,
        repository_id=google.repository.name,
        format="DOCKER",
        description="Modelcars: models as OCI images",
        docker_config=registry.RepositoryDockerConfigArgs(immutable_tags=True),
        cleanup_policies=[
            # A policy that keeps wins over one that deletes.
            policy(id="keep-tagged", action="KEEP", condition=condition(tag_state="TAGGED")),
            policy(id="delete-untagged", action="DELETE", condition=untagged),
        ],
        cleanup_policy_dry_run=False,
        vulnerability_scanning_config=registry.RepositoryVulnerabilityScanningConfigArgs(
            enablement_config=scanning
        ),
        labels=labels,
    )
