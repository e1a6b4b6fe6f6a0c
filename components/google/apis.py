"""Google's APIs that a stack needs, switched on before what uses them."""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp

#: https://cloud.google.com/kubernetes-engine/docs/how-to/creating-a-zonal-cluster#before_you_begin and
#: https://cloud.google.com/artifact-registry/docs/enable-service
APIS = (
    "artifactregistry.googleapis.com",
    "compute.googleapis.com",
    "container.googleapis.com",
    "iam.googleapis.com",
)
#: Scans pushed images: https://cloud.google.com/artifact-analysis/docs/os-scanning-automatically
SCANNING_API = "containerscanning.googleapis.com"


def enable(project: str, *, scanning: bool, parent: pulumi.Resource) -> list[pulumi.Resource]:
    """Switch the APIs on; they stay on when the stack goes, since others in the project may use them."""
    names = [*APIS, SCANNING_API] if scanning else [*APIS]
    return [
        gcp.projects.Service(
            name.partition(".")[0],
            project=project,
            service=name,
            disable_on_destroy=False,
            opts=pulumi.ResourceOptions(parent=parent),
        )
        for name in names
    ]
