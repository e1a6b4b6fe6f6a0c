"""The Artifact Registry repository of a stack's modelcars, and who may read it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

import pulumi
import pulumi_gcp as gcp

from components.config.google import RepositorySettings
from components.engine.inputs import Arguments
from components.engine.options import child, imported
from modelcar.errors import InputError, Problem

#: Read images of one repository: https://cloud.google.com/artifact-registry/docs/access-control
READER = "roles/artifactregistry.reader"
#: What Google changes of a repository in place.
CHANGEABLE = (
    *("cleanupPolicies", "cleanupPolicyDryRun", "description"),
    *("dockerConfig", "labels", "vulnerabilityScanningConfig"),
)
DAY = 24 * 60 * 60


@dataclass(frozen=True, kw_only=True)
class ModelRegistryArgs(Arguments):
    """What the repository is made of.

    project: Id of the project.
    region: Region of the repository.
    reader: E-mail of the nodes' service account.
    repository: Name of the repository, and what is kept in it.
    protect: Refuse to delete the repository; `protect` in the options is for all of the component.
    labels: Labels, for costs.
    imports: Kinds of objects that are there already (Repository, RepositoryIamMember), and are taken over as
        they are. They need plain values of project, region and reader.
    """

    project: pulumi.Input[str]
    region: pulumi.Input[str]
    reader: pulumi.Input[str]
    repository: RepositorySettings = field(default_factory=RepositorySettings)
    protect: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    imports: Collection[Literal["Repository", "RepositoryIamMember"]] = ()


class ModelRegistry(pulumi.ComponentResource):
    """A Docker repository for modelcars, readable by the nodes that serve them, and by this grant alone.

    Tags are immutable, so a tag can never leave the digest that it was given to; every modelcar has a tag;
    and the only images that a cleanup deletes are those without one. So no cleanup can delete an image that
    some stack still serves (https://cloud.google.com/artifact-registry/docs/repositories/cleanup-policy).

    Outputs:
        path: REGION-docker.pkg.dev/PROJECT/REPOSITORY, what images are named by. Let what pulls from it
            depend on the component: nodes may read it once that is there.
    """

    path: pulumi.Output[str]

    def __init__(
        self, name: str, args: ModelRegistryArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Declare the repository, or adopt it, and the grant on it."""
        super().__init__("modelcar:google:ModelRegistry", name, None, opts)
        kept = args.repository
        known_as = _identity(args)
        repository: gcp.artifactregistry.Repository
        if kept.existing:
            repository = gcp.artifactregistry.Repository.get(name, known_as, opts=child(self, opts))
        else:
            repository = gcp.artifactregistry.Repository(
                name,
                repository_inputs(args),
                opts=imported(
                    pulumi.ResourceOptions.merge(
                        child(self, opts), pulumi.ResourceOptions(protect=args.protect or None)
                    ),
                    "Repository",
                    args.imports,
                    known_as,
                    CHANGEABLE,
                ),
            )
        gcp.artifactregistry.RepositoryIamMember(
            f"{name}-reader",
            project=args.project,
            location=args.region,
            repository=repository.repository_id,
            role=READER,
            member=pulumi.Output.concat("serviceAccount:", args.reader),
            opts=imported(
                child(self, opts),
                "RepositoryIamMember",
                args.imports,
                f"{known_as} {READER} serviceAccount:{args.reader if args.imports else ''}",
                (),
            ),
        )
        self.path = pulumi.Output.all(args.region, args.project, repository.id).apply(
            lambda found: f"{found[0]}-docker.pkg.dev/{found[1]}/{kept.name}"
        )
        self.register_outputs({"path": self.path})


def _identity(args: ModelRegistryArgs) -> str:
    """Return what Google knows the repository by; empty where nobody asks for one that is there.

    Raises:
        modelcar.errors.InputError: it is there, and what names it is another resource's output.
    """
    if not args.imports and not args.repository.existing:
        return ""
    named = {"project": args.project, "region": args.region}
    if "RepositoryIamMember" in args.imports:
        named["reader"] = args.reader
    for name, value in named.items():
        if not isinstance(value, str):
            found = "an output of another resource, and the repository is there already"
            raise InputError([Problem(name, found, "plain text", "write it as text")])
    return f"projects/{args.project}/locations/{args.region}/repositories/{args.repository.name}"


def repository_inputs(args: ModelRegistryArgs) -> gcp.artifactregistry.RepositoryArgs:
    """Return the inputs of the repository."""
    registry = gcp.artifactregistry
    policy, condition = registry.RepositoryCleanupPolicyArgs, registry.RepositoryCleanupPolicyConditionArgs
    untagged = condition(tag_state="UNTAGGED", older_than=f"{args.repository.untagged_days * DAY}s")
    scanning = "DISABLED" if args.repository.vulnerability_scanning is False else "INHERITED"
    return registry.RepositoryArgs(
        project=args.project,
        location=args.region,
        repository_id=args.repository.name,
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
        labels={**args.labels},
    )
