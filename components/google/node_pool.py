"""The pool of GPU nodes that serve models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_gcp as gcp

from components.config import disk
from components.config.arguments import as_arguments
from components.config.checks.google import of_pool, of_zones
from components.config.google import NodeSettings
from components.engine.inputs import Arguments
from components.engine.options import child
from components.google.cluster import SCOPE
from modelcar.errors import InputError

#: The taint that GKE puts on nodes with GPUs by itself, and the pods' toleration answers:
#: https://cloud.google.com/kubernetes-engine/docs/how-to/gpus#create-gpu-pool-auto-drivers
GPU_TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NO_SCHEDULE"}


@dataclass(frozen=True, kw_only=True)
class GpuNodePoolArgs(Arguments):
    """What the pool is made of.

    project: Id of the cluster's project.
    cluster: Id or name of the cluster.
    location: Region or zone of the cluster.
    nodes: What the nodes are, and how many.
    service_account: E-mail of the service account that the nodes run as.
    zones: Zones of the nodes; by default those of `nodes`, or of the cluster.
    need: What the disks have to hold; by default what any node needs.
    labels: Labels, for costs.
    """

    project: pulumi.Input[str]
    cluster: pulumi.Input[str]
    location: pulumi.Input[str]
    nodes: NodeSettings
    service_account: pulumi.Input[str]
    zones: Sequence[str] | None = None
    need: disk.DiskNeed | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse nodes that Google would refuse, or make otherwise than meant.

        Raises:
            modelcar.errors.InputError: with everything that is wrong.
        """
        super().__post_init__()
        found = [*of_pool("nodes", self.nodes, self.need)]
        if self.zones is None:
            found += of_zones("nodes.zones", self.nodes, self.nodes.zones)
        else:
            found += of_zones("zones", self.nodes, self.zones)
        if problems := list(as_arguments(found, {})):
            raise InputError(problems)


class GpuNodePool(pulumi.ComponentResource):
    """Nodes with GPUs, from none to as many as the settings allow, on disks that hold the model.

    Outputs:
        name: of the node pool.
        disk_gb: size of each node's boot disk.
    """

    name: pulumi.Output[str]
    disk_gb: int

    def __init__(self, name: str, args: GpuNodePoolArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the pool."""
        super().__init__("modelcar:google:GpuNodePool", name, None, opts)
        nodes = args.nodes
        need = args.need or disk.need([])
        zones = nodes.zones if args.zones is None else args.zones
        self.disk_gb = nodes.disk_gb or need.disk
        pool = gcp.container.NodePool(
            name,
            project=args.project,
            cluster=args.cluster,
            location=args.location,
            name=nodes.name,
            node_locations=list(zones) if zones or args.zones is not None else None,
            initial_node_count=0,
            autoscaling=gcp.container.NodePoolAutoscalingArgs(
                total_min_node_count=nodes.min_nodes,
                total_max_node_count=nodes.max_nodes,
                # Wherever a GPU can be had; BALANCED would wait for the zone whose turn it is.
                location_policy="ANY",
            ),
            management=gcp.container.NodePoolManagementArgs(auto_repair=True, auto_upgrade=True),
            # Without surge: a second GPU is often not to be had, and a pool of one would never be upgraded.
            upgrade_settings=gcp.container.NodePoolUpgradeSettingsArgs(
                strategy="SURGE", max_surge=0, max_unavailable=1
            ),
            node_config=node_config(args, self.disk_gb, need),
            opts=pulumi.ResourceOptions.merge(
                child(self, opts),
                # The autoscaler owns the number of nodes.
                pulumi.ResourceOptions(ignore_changes=["initialNodeCount", "nodeCount"]),
            ),
        )
        self.name = pool.name
        self.register_outputs({"name": self.name, "diskGb": self.disk_gb})


def _faster_starts(nodes: NodeSettings) -> dict[str, Any]:
    """Return what shortens a cold start, as far as it is set (docs/operations/cold-start.md)."""
    container = gcp.container
    found: dict[str, Any] = {}
    if nodes.secondary_boot_disk:
        preloaded = container.NodePoolNodeConfigSecondaryBootDiskArgs(
            disk_image=nodes.secondary_boot_disk, mode="CONTAINER_IMAGE_CACHE"
        )
        found["secondary_boot_disks"] = [preloaded]
    if nodes.ssds_per_node:
        # Also those that the machine always has: GKE reports them, and Google's provider would replace a pool
        # that has them and does not say so.
        found["ephemeral_storage_local_ssd_config"] = (
            container.NodePoolNodeConfigEphemeralStorageLocalSsdConfigArgs(
                local_ssd_count=nodes.ssds_per_node
            )
        )
    if nodes.parallel_pulls:
        found["kubelet_config"] = container.NodePoolNodeConfigKubeletConfigArgs(
            max_parallel_image_pulls=nodes.parallel_pulls
        )
    return found


def node_config(
    args: GpuNodePoolArgs, disk_gb: int, need: disk.DiskNeed
) -> gcp.container.NodePoolNodeConfigArgs:
    """Return what each node is."""
    nodes, container = args.nodes, gcp.container
    accelerator = container.NodePoolNodeConfigGuestAcceleratorArgs(
        type=nodes.gpu,
        count=nodes.gpus_per_node,
        gpu_driver_installation_config=container.NodePoolNodeConfigGuestAcceleratorGpuDriverInstallationConfigArgs(
            gpu_driver_version=nodes.driver
        ),
    )
    reservation = container.NodePoolNodeConfigReservationAffinityArgs(
        consume_reservation_type="SPECIFIC_RESERVATION",
        key="compute.googleapis.com/reservation-name",
        values=[nodes.reservation or ""],
    )
    return container.NodePoolNodeConfigArgs(
        machine_type=nodes.machine_type,
        image_type="COS_CONTAINERD",
        disk_size_gb=disk_gb,
        disk_type=nodes.boot_disk_type,
        service_account=args.service_account,
        oauth_scopes=[SCOPE],
        guest_accelerators=[accelerator],
        taints=[container.NodePoolNodeConfigTaintArgs(**GPU_TAINT)],
        spot=nodes.spot,
        reservation_affinity=reservation if nodes.reservation else None,
        workload_metadata_config=container.NodePoolNodeConfigWorkloadMetadataConfigArgs(mode="GKE_METADATA"),
        shielded_instance_config=container.NodePoolNodeConfigShieldedInstanceConfigArgs(
            enable_secure_boot=True, enable_integrity_monitoring=True
        ),
        gvnic=container.NodePoolNodeConfigGvnicArgs(enabled=True),
        gcfs_config=container.NodePoolNodeConfigGcfsConfigArgs(enabled=nodes.image_streaming),
        **_faster_starts(nodes),
        metadata={"disable-legacy-endpoints": "true"},
        labels={"modelcar.dev/gpu": nodes.gpu},
        # The policy pack holds the disk to this.
        resource_labels={**args.labels, "modelcar-disk-need-gb": str(need.disk)},
    )
