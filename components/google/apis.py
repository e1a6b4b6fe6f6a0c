"""Google's APIs that a stack needs, switched on before what uses them."""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp

from components.config.google import GoogleSettings
from components.engine.options import renamed

#: https://cloud.google.com/kubernetes-engine/docs/how-to/creating-a-zonal-cluster#before_you_begin and
#: https://cloud.google.com/artifact-registry/docs/enable-service; the provider asks Cloud Resource Manager
#: for the project where it switches on an API, and where it grants a role on the project.
APIS = (
    "artifactregistry.googleapis.com",
    "cloudresourcemanager.googleapis.com",
    "compute.googleapis.com",
    "container.googleapis.com",
    "iam.googleapis.com",
)
#: Streams images: https://cloud.google.com/kubernetes-engine/docs/how-to/image-streaming#requirements
STREAMING_API = "containerfilesystem.googleapis.com"
#: Scans, and bills, each image that is pushed to any repository of the project:
#: https://cloud.google.com/artifact-analysis/docs/os-scanning-automatically
SCANNING_API = "containerscanning.googleapis.com"


def needed(google: GoogleSettings) -> tuple[str, ...]:
    """Return the APIs that a stack needs."""
    streaming = (STREAMING_API,) if google.image_streaming else ()
    scanning = (SCANNING_API,) if google.repository.vulnerability_scanning else ()
    return (*APIS, *streaming, *scanning)


def enable(name: str, google: GoogleSettings, opts: pulumi.ResourceOptions) -> list[pulumi.Resource]:
    """Switch the APIs on; they stay on when the stack goes, since others in the project may use them.

    Args:
        name: of the component; a program may have several.
        google: the settings. opts: of the component's children.
    """
    return [
        gcp.projects.Service(
            f"{name}-{short}",
            project=google.project,
            service=api,
            disable_on_destroy=False,
            opts=renamed(opts, short),
        )
        for api in needed(google)
        for short in [api.partition(".")[0]]
    ]
