"""The resource types that the stand-in has.

What replaces a resource follows the official provider (properties that its documentation says force a new
resource); in_place lists what pulumi-gcp 10 changes without that.
"""

from __future__ import annotations

from typing import Final

from local.standins.gcp_provider.resources import Kind

_NETWORK: Final = "projects/{project}/global/networks/{network}"
_REPOSITORY: Final = "projects/{project}/locations/{location}/repositories/{repository}"
_CLUSTER: Final = "projects/{project}/locations/{location}/clusters/{cluster}"
_GRANT: Final = ("member", "role", "condition", "project", "location", "repository")

#: What of nodes the provider changes without replacing their pool.
_NODES_IN_PLACE = (
    "nodeConfig.diskSizeGb",
    "nodeConfig.diskType",
    "nodeConfig.machineType",
    "nodeConfig.labels",
    "nodeConfig.taints",
    "nodeConfig.tags",
    "nodeConfig.resourceLabels",
    "nodeConfig.imageType",
    "nodeConfig.workloadMetadataConfig",
    "nodeConfig.gcfsConfig",
)

KINDS: Final = {
    kind.token: kind
    for kind in (
        Kind(
            "gcp:projects/service:Service",
            "projects/service",
            "API",
            "",
            "projects/{project}/services/{service}",
            "{project}/{service}",
            name_property="service",
            replacing=("service", "project"),
            shareable=True,
        ),
        Kind(
            "gcp:artifactregistry/repository:Repository",
            "artifactregistry/repository",
            "repository",
            "artifactregistry.googleapis.com",
            "projects/{project}/locations/{location}/repositories/{name}",
            "projects/{project}/locations/{location}/repositories/{name}",
            place="location",
            name_property="repositoryId",
            replacing=("repositoryId", "location", "project", "format", "mode", "kmsKeyName", "mavenConfig"),
        ),
        Kind(
            "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember",
            "artifactregistry/repository_iam_member",
            "grant",
            "artifactregistry.googleapis.com",
            f"{_REPOSITORY}/{{role}}/{{member}}",
            f"{_REPOSITORY}/{{role}}/{{member}}",
            place="location",
            replacing=_GRANT,
            parents={"repository": _REPOSITORY},
            shareable=True,
        ),
        Kind(
            "gcp:serviceaccount/account:Account",
            "serviceaccount/account",
            "service account",
            "iam.googleapis.com",
            "projects/{project}/serviceAccounts/{name}@{project}.iam.gserviceaccount.com",
            "projects/{project}/serviceAccounts/{name}@{project}.iam.gserviceaccount.com",
            name_property="accountId",
            autoname=30,
            replacing=("accountId", "project"),
        ),
        Kind(
            "gcp:projects/iAMMember:IAMMember",
            "projects/iam_member",
            "grant",
            "cloudresourcemanager.googleapis.com",
            "projects/{project}/iam/{role}/{member}",
            "{project}/{role}/{member}",
            replacing=_GRANT,
            shareable=True,
        ),
        Kind(
            "gcp:compute/network:Network",
            "compute/network",
            "network",
            "compute.googleapis.com",
            "projects/{project}/global/networks/{name}",
            "projects/{project}/global/networks/{name}",
            autoname=63,
            replacing=(
                "name",
                "project",
                "autoCreateSubnetworks",
                "description",
                "internalIpv6Range",
                "enableUlaInternalIpv6",
                "networkProfile",
            ),
        ),
        Kind(
            "gcp:compute/subnetwork:Subnetwork",
            "compute/subnetwork",
            "subnetwork",
            "compute.googleapis.com",
            "projects/{project}/regions/{region}/subnetworks/{name}",
            "projects/{project}/regions/{region}/subnetworks/{name}",
            place="region",
            autoname=63,
            replacing=(
                "name",
                "project",
                "region",
                "network",
                "description",
                "purpose",
                "reservedInternalRange",
            ),
            parents={"network": _NETWORK},
        ),
        Kind(
            "gcp:compute/router:Router",
            "compute/router",
            "router",
            "compute.googleapis.com",
            "projects/{project}/regions/{region}/routers/{name}",
            "projects/{project}/regions/{region}/routers/{name}",
            place="region",
            autoname=63,
            replacing=("name", "project", "region", "network", "encryptedInterconnectRouter"),
            parents={"network": _NETWORK},
        ),
        Kind(
            "gcp:compute/routerNat:RouterNat",
            "compute/router_nat",
            "NAT gateway",
            "compute.googleapis.com",
            "projects/{project}/regions/{region}/routers/{router}/nats/{name}",
            "{project}/{region}/{router}/{name}",
            place="region",
            autoname=63,
            replacing=("name", "project", "region", "router", "type", "endpointTypes", "initialNatIps"),
            parents={"router": "projects/{project}/regions/{region}/routers/{router}"},
        ),
        Kind(
            "gcp:container/cluster:Cluster",
            "container/cluster",
            "cluster",
            "container.googleapis.com",
            "projects/{project}/locations/{location}/clusters/{name}",
            "projects/{project}/locations/{location}/clusters/{name}",
            place="location",
            autoname=40,
            replacing=(
                "name",
                "project",
                "location",
                "network",
                "subnetwork",
                "networkingMode",
                "ipAllocationPolicy.clusterIpv4CidrBlock",
                "ipAllocationPolicy.clusterSecondaryRangeName",
                "ipAllocationPolicy.servicesIpv4CidrBlock",
                "ipAllocationPolicy.servicesSecondaryRangeName",
                "enableAutopilot",
                "initialNodeCount",
                "description",
                "clusterIpv4Cidr",
                "defaultMaxPodsPerNode",
                "enableKubernetesAlpha",
                "confidentialNodes",
                "privateClusterConfig.enablePrivateNodes",
                "privateClusterConfig.masterIpv4CidrBlock",
                "nodeConfig",
            ),
            in_place=_NODES_IN_PLACE,
            # https://github.com/hashicorp/terraform-provider-google/issues/27901
            forced={
                "privateClusterConfig.enablePrivateEndpoint": (
                    "controlPlaneEndpointsConfig.ipEndpointsConfig.enabled"
                )
            },
            parents={
                "network": _NETWORK,
                "subnetwork": "projects/{project}/regions/{region}/subnetworks/{subnetwork}",
            },
        ),
        Kind(
            "gcp:container/nodePool:NodePool",
            "container/node_pool",
            "node pool",
            "container.googleapis.com",
            f"{_CLUSTER}/nodePools/{{name}}",
            f"{_CLUSTER}/nodePools/{{name}}",
            place="location",
            autoname=40,
            replacing=(
                "name",
                "namePrefix",
                "project",
                "location",
                "cluster",
                "initialNodeCount",
                "maxPodsPerNode",
                "placementPolicy",
                "networkConfig",
                "queuedProvisioning",
                "nodeConfig",
            ),
            in_place=(
                *_NODES_IN_PLACE,
                "nodeConfig.kubeletConfig",
                "nodeConfig.linuxNodeConfig",
                "nodeConfig.gvnic",
                "nodeConfig.fastSocket",
                "nodeConfig.loggingVariant",
                "nodeConfig.resourceManagerTags",
                "nodeConfig.storagePools",
                "nodeConfig.containerdConfig",
                "networkConfig.enablePrivateNodes",
            ),
            read_back=("nodeConfig.ephemeralStorageLocalSsdConfig",),
            parents={"cluster": _CLUSTER},
        ),
    )
}
