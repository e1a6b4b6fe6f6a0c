"""Which message of which API a resource type is sent as, and which properties have another name there.

Only what differs is listed. tests/unit/test_standins_gcp_mapping.py holds every entry against both the
pulumi_gcp package and the discovery documents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Root:
    """The message of one API; method: the one that creates it, as `annotations.required` names it."""

    api: str
    schema: str
    method: str = ""


ROOTS: Final[dict[str, tuple[Root, ...]]] = {
    "gcp:artifactregistry/repository:Repository": (Root("artifactregistry.v1", "Repository"),),
    "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember": (Root("artifactregistry.v1", "Binding"),),
    "gcp:compute/network:Network": (Root("compute.v1", "Network", "compute.networks.insert"),),
    "gcp:compute/router:Router": (Root("compute.v1", "Router", "compute.routers.insert"),),
    "gcp:compute/routerNat:RouterNat": (Root("compute.v1", "RouterNat"),),
    "gcp:compute/subnetwork:Subnetwork": (Root("compute.v1", "Subnetwork"),),
    "gcp:container/cluster:Cluster": (Root("container.v1", "Cluster"),),
    "gcp:container/nodePool:NodePool": (Root("container.v1", "NodePool"),),
    "gcp:projects/service:Service": (Root("serviceusage.v1", "GoogleApiServiceusageV1Service"),),
    "gcp:serviceaccount/account:Account": (
        Root("iam.v1", "CreateServiceAccountRequest"),
        Root("iam.v1", "ServiceAccount"),
    ),
}

# (message, property of the provider) -> the API's field; a dot leads through nested messages.
RENAMED: Final[dict[tuple[str, str], str]] = {
    ("AcceleratorConfig", "count"): "acceleratorCount",
    ("AcceleratorConfig", "type"): "acceleratorType",
    ("Cluster", "clusterAutoscaling"): "autoscaling",
    ("Cluster", "datapathProvider"): "networkConfig.datapathProvider",
    ("Cluster", "defaultMaxPodsPerNode"): "defaultMaxPodsConstraint.maxPodsPerNode",
    ("Cluster", "dnsConfig"): "networkConfig.dnsConfig",
    ("Cluster", "enableAutopilot"): "autopilot.enabled",
    ("Cluster", "enableFqdnNetworkPolicy"): "networkConfig.enableFqdnNetworkPolicy",
    ("Cluster", "enableIntranodeVisibility"): "networkConfig.enableIntraNodeVisibility",
    ("Cluster", "enableL4IlbSubsetting"): "networkConfig.enableL4ilbSubsetting",
    ("Cluster", "enableMultiNetworking"): "networkConfig.enableMultiNetworking",
    ("Cluster", "enableShieldedNodes"): "shieldedNodes.enabled",
    ("Cluster", "gatewayApiConfig"): "networkConfig.gatewayApiConfig",
    ("Cluster", "inTransitEncryptionConfig"): "networkConfig.inTransitEncryptionConfig",
    ("Cluster", "minMasterVersion"): "initialClusterVersion",
    ("Cluster", "networkPerformanceConfig"): "networkConfig.networkPerformanceConfig",
    ("Cluster", "nodeLocations"): "locations",
    ("Cluster", "privateIpv6GoogleAccess"): "networkConfig.privateIpv6GoogleAccess",
    ("LoggingConfig", "enableComponents"): "componentConfig.enableComponents",
    ("MaintenancePolicy", "dailyMaintenanceWindow"): "window.dailyMaintenanceWindow",
    ("MaintenancePolicy", "maintenanceExclusions"): "window.maintenanceExclusions",
    ("MaintenancePolicy", "recurringWindow"): "window.recurringWindow",
    ("MonitoringConfig", "enableComponents"): "componentConfig.enableComponents",
    ("MonitoringConfig", "managedPrometheus"): "managedPrometheusConfig",
    ("Network", "bgpBestPathSelectionMode"): "routingConfig.bgpBestPathSelectionMode",
    ("Network", "bgpInterRegionCost"): "routingConfig.bgpInterRegionCost",
    ("Network", "routingMode"): "routingConfig.routingMode",
    ("NodeConfig", "gpudirectStrategy"): "gpuDirectConfig.gpuDirectStrategy",
    ("NodeConfig", "guestAccelerators"): "accelerators",
    ("NodeConfig", "loggingVariant"): "loggingConfig.variantConfig.variant",
    ("NodePool", "maintenancePolicies"): "maintenancePolicy",
    ("NodePool", "maxPodsPerNode"): "maxPodsConstraint.maxPodsPerNode",
    ("NodePool", "nodeConfig"): "config",
    ("NodePool", "nodeLocations"): "locations",
    ("RecurringTimeWindow", "endTime"): "window.endTime",
    ("RecurringTimeWindow", "startTime"): "window.startTime",
    ("TimeWindow", "exclusionOptions"): "maintenanceExclusionOptions",
}

# (message, property) whose text the provider turns into the API's form itself: "30d" into seconds.
FREE_FORMAT: Final = frozenset(
    {("CleanupPolicyCondition", "newerThan"), ("CleanupPolicyCondition", "olderThan")}
)
