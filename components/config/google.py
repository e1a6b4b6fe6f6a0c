"""Typed settings of the Google Cloud side (`modelcar:google`)."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from components.config import gpus
from components.config.disk import LARGEST_DISK
from components.config.fields import Refused, matches, network_field, not_everything
from components.config.section import Section

_LOWER = "lower-case letters, digits and '-', starting with a letter and not ending with '-'"

#: https://cloud.google.com/resource-manager/docs/creating-managing-projects
Project = Annotated[
    str,
    matches(
        re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]"),
        "not a project id",
        f"6 to 30 {_LOWER}",
        "take the id (not the name or the number) as `gcloud projects list` shows it",
    ),
]
Region = Annotated[
    str,
    matches(
        re.compile(r"[a-z]+-[a-z]+[0-9]{1,2}"),
        "not a region",
        "a region such as europe-west4",
        "choose one of `gcloud compute regions list`",
    ),
]
Location = Annotated[
    str,
    matches(
        re.compile(r"[a-z]+-[a-z]+[0-9]{1,2}(-[a-z])?"),
        "neither a region nor a zone",
        "a region such as europe-west4, or a zone such as europe-west4-a",
        "choose one of `gcloud compute zones list`",
    ),
]
Zone = Annotated[
    str,
    matches(
        re.compile(r"[a-z]+-[a-z]+[0-9]{1,2}-[a-z]"),
        "not a zone",
        "a zone such as europe-west4-a",
        "choose one of `gcloud compute zones list`",
    ),
]
#: https://cloud.google.com/artifact-registry/docs/reference/rest/v1/projects.locations.repositories
RepositoryId = Annotated[
    str,
    matches(
        re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?"),
        "not a repository id",
        f"up to 63 {_LOWER}",
        "rename it",
    ),
]
#: https://cloud.google.com/kubernetes-engine/docs/reference/rest/v1/projects.locations.clusters
ResourceName = Annotated[
    str,
    matches(
        re.compile(r"(?!goog)[a-z]([-a-z0-9]{0,38}[a-z0-9])?"),
        "GKE refuses this name",
        f"up to 40 {_LOWER}, and not beginning with goog",
        "rename it",
    ),
]
#: Of Compute Engine, and of another project where that shares it:
#: https://cloud.google.com/compute/docs/reference/rest/v1/reservations (name), and
#: https://cloud.google.com/compute/docs/reference/rest/v1/ReservationAffinity (values)
ReservationName = Annotated[
    str,
    matches(
        re.compile(r"(projects/[a-z0-9.:-]+/reservations/)?[a-z]([-a-z0-9]{0,61}[a-z0-9])?"),
        "not a reservation",
        f"NAME, or projects/PROJECT/reservations/NAME of one that is shared; NAME has up to 63 {_LOWER}",
        "take it from `gcloud compute reservations list`",
    ),
]
#: https://cloud.google.com/iam/docs/service-accounts-create
ServiceAccountEmail = Annotated[
    str,
    matches(
        re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]@[a-z][a-z0-9-]{4,28}[a-z0-9]\.iam\.gserviceaccount\.com"),
        "not the e-mail of a service account of one's own (Compute Engine's default one has too many rights)",
        "NAME@PROJECT.iam.gserviceaccount.com",
        "take it from `gcloud iam service-accounts list`, or leave it out and one is created",
    ),
]


_EVERYBODY = Refused("opens the control plane to everybody", "a narrower network", "name your own addresses")
Network = Annotated[str, network_field("203.0.113.0/24", _EVERYBODY)]


class RepositorySettings(Section):
    """The Artifact Registry repository.

    name: id of the repository.
    existing: adopt one that is there, instead of creating it.
    untagged_days: untagged images are deleted after so many days; tagged ones never are.
    vulnerability_scanning: as the project is set where not set; true also switches the scanning API on, which
        bills each image that is pushed to any repository of the project; false scans nothing of this one.
    """

    name: RepositoryId = "modelcars"
    existing: bool = False
    untagged_days: int = Field(30, ge=1, le=3650)
    vulnerability_scanning: bool | None = None


class ClusterSettings(Section):
    """The cluster: adopted by name and location, or by a StackReference, or created.

    name: name of the cluster.
    location: region or zone of it; the stack's region where not set.
    create: make it; else it has to be there.
    stack_reference: ORG/PROJECT/STACK whose outputs `clusterName` and `clusterLocation` name the cluster.
    authorized_networks: who may reach a created cluster's control plane by address; where empty, it is
        reached by its DNS name only, which asks for IAM rights before anything else. A cluster that is
        deployed keeps having some, or none.
    release_channel: release channel of a created cluster.
    """

    name: ResourceName | None = None
    location: Location | None = None
    create: bool = False
    stack_reference: (
        Annotated[
            str,
            matches(
                re.compile(r"[^/\s]+/[^/\s]+/[^/\s]+"),
                "not a stack",
                "ORGANIZATION/PROJECT/STACK",
                "see `pulumi stack ls`",
            ),
        ]
        | None
    ) = None
    release_channel: Literal["RAPID", "REGULAR", "STABLE", "EXTENDED"] = "REGULAR"
    authorized_networks: Annotated[tuple[Network, ...], not_everything(_EVERYBODY)] = ()


class NodeSettings(Section):
    """The pool of GPU nodes.

    name: name of the pool in the cluster.
    gpu: GPU, as GKE names it (`cloud.google.com/gke-accelerator`); `nvidia-gb200` is known and refused (its
        machines are Arm ones).
    gpus_per_node: GPUs of one node: as many as the machine type has, or one of those that it can have.
    machine_type: machine type of Compute Engine, with that GPU.
    check_zones: refuse a zone that is not known to have the GPU; false where Google has a new one.
    disk_type: type of the boot disk; the first one that the machine takes where not set.
    driver: version of the GPU driver that GKE installs.
    service_account: e-mail of the nodes' own, of all pools; one with the least rights is made where not set.
        One that is set gets no roles in the project.
    zones: where nodes may be; all zones of the cluster's region that have the GPU where empty.
    min_nodes: so many nodes of the whole pool stay once pods have made them; none is made for this number.
    max_nodes: the most nodes of the whole pool, over all zones.
    provisioning: `spot` can be taken away at any time, at a fraction of the price.
    reservation: name of the reservation, for provisioning `reservation`; of one that another project shares
        `projects/PROJECT/reservations/NAME`.
    disk_gb: size of the boot disk; computed from the model's size where not set.
    image_streaming: start pods before their image is pulled whole; a modelcar reads all of it anyway.
    secondary_boot_disk: disk image with preloaded container images (gke-disk-image-builder); takes streaming.
    local_ssds: local SSDs of 375 GB each, for images and all else that pods write, in place of the boot disk;
        A3 and A4 machines always have theirs, and need no number here.
    parallel_pulls: images that the kubelet pulls at the same time; GKE's own choice (2 or 3) where not set.
    """

    name: ResourceName = "gpu"
    gpu: Literal[gpus.GPUS]  # type: ignore[valid-type]
    gpus_per_node: int = Field(1, ge=1, le=16)
    machine_type: str
    zones: tuple[Zone, ...] = ()
    check_zones: bool = True
    min_nodes: int = Field(0, ge=0, le=1000)
    max_nodes: int = Field(1, ge=1, le=1000)
    provisioning: Literal[gpus.PROVISIONING] = "on-demand"  # type: ignore[valid-type]
    reservation: ReservationName | None = None
    disk_gb: int | None = Field(None, ge=10, le=LARGEST_DISK)
    disk_type: Literal[gpus.DISK_TYPES] | None = None  # type: ignore[valid-type]
    driver: Literal["DEFAULT", "LATEST"] = "DEFAULT"
    image_streaming: bool = False
    secondary_boot_disk: (
        Annotated[
            str,
            matches(
                re.compile(r"(projects/[a-z0-9.:-]+/)?global/images/[a-z]([a-z0-9-]{0,61}[a-z0-9])?"),
                "not a disk image",
                "global/images/NAME or projects/PROJECT/global/images/NAME",
                "gke-disk-image-builder makes one: docs/operations/cold-start.md",
            ),
        ]
        | None
    ) = None
    local_ssds: int = Field(0, ge=0, le=32)
    #: https://cloud.google.com/kubernetes-engine/docs/reference/rest/v1/NodeConfig (maxParallelImagePulls)
    parallel_pulls: int | None = Field(None, ge=2, le=5)
    service_account: ServiceAccountEmail | None = None

    @property
    def spot(self) -> bool:
        """Whether nodes are spot VMs."""
        return bool(self.provisioning == "spot")

    @property
    def boot_disk_type(self) -> str:
        """Type of the boot disk: as set, else what the machine takes."""
        machine = gpus.MACHINES.get(self.machine_type)
        return str(self.disk_type) if self.disk_type else (machine.disks if machine else gpus.PERSISTENT)[0]

    @property
    def ssds_per_node(self) -> int:
        """Local SSDs of a node: as set, else those that the machine always has."""
        machine = gpus.MACHINES.get(self.machine_type)
        return int(self.local_ssds or (machine.own_ssds if machine else 0))


class GoogleSettings(Section):
    """`modelcar:google`: project, registry, cluster and nodes in Google Cloud.

    project: id of the project.
    region: region of the repository and of the cluster.
    repository: where modelcars are pushed to.
    cluster: where models are served.
    protect: refuse to delete the repository and the cluster; for production.
    enable_apis: switch on the APIs that the stack needs.
    nodes: the pool of GPU nodes.
    pools: more of them, with other GPUs or machines; each model's pods land on one (`modelcar:nodePool`).
    """

    project: Project
    region: Region
    protect: bool = False
    enable_apis: bool = True
    repository: RepositorySettings = Field(default_factory=RepositorySettings)
    cluster: ClusterSettings
    nodes: NodeSettings
    pools: tuple[NodeSettings, ...] = ()

    @property
    def location(self) -> str | None:
        """Where the cluster is; None where a stack reference tells, and it was not read yet."""
        if self.cluster.stack_reference:
            return self.cluster.location
        return self.cluster.location or self.region

    @property
    def registry(self) -> str:
        """The repository as images name it."""
        return f"{self.region}-docker.pkg.dev/{self.project}/{self.repository.name}"

    @property
    def all_pools(self) -> tuple[NodeSettings, ...]:
        """The pools of GPU nodes."""
        return (self.nodes, *self.pools)

    @property
    def image_streaming(self) -> bool:
        """Whether nodes of any pool stream images."""
        return any(pool.image_streaming for pool in self.all_pools)

    def zones_of(self, nodes: NodeSettings) -> tuple[str, ...]:
        """Return the zones of a pool: the ones that are set, else all of the location that have its GPU."""
        if nodes.zones:
            return nodes.zones
        location = self.location or self.region
        if gpus.is_zone(location):
            return (location,)
        return tuple(sorted(z for z in gpus.ZONES.get(nodes.gpu, ()) if gpus.region_of(z) == location))
