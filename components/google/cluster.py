"""The cluster that models are served on, as a stack knows it; and a small one with secure defaults.

One that is there already: `components/google/adopted_cluster.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pulumi
import pulumi_gcp as gcp

from components.engine.options import child, is_protected

#: Private addresses of a created cluster: nodes, pods, services.
NODES_CIDR, PODS_CIDR, SERVICES_CIDR = "10.10.0.0/20", "10.20.0.0/14", "10.24.0.0/20"


#: Access is limited by IAM roles, not by scopes:
#: https://cloud.google.com/kubernetes-engine/docs/how-to/access-scopes
SCOPE = "https://www.googleapis.com/auth/cloud-platform"


@dataclass(frozen=True)
class Cluster:
    """What the rest of the stack has to know of the cluster.

    kubeconfig: without any credential in it.
    endpoint: by which it reaches the control plane: `dns`, its DNS name, or `ip`, its address.
    identifier: tells it from every other cluster, one made anew by its name too, whatever becomes of its
        address and certificates: its DNS name, which it has for life. None where it has none.
    ready: what is there once the cluster can run pods, for `depends_on`.
    """

    name: pulumi.Output[str]
    location: pulumi.Output[str]
    kubeconfig: pulumi.Output[str]
    endpoint: pulumi.Output[str]
    identifier: pulumi.Output[str | None]
    ready: Sequence[pulumi.Resource] = ()


@dataclass(frozen=True, kw_only=True)
class NewClusterArgs:
    """What the cluster is made of.

    project, region: where its network is. location: of the cluster, that region or a zone of it.
    name: of the cluster. service_account: e-mail that its nodes run as.
    release_channel: that keeps it up to date.
    authorized_networks: who may reach its control plane by address; by its DNS name where empty. The first
        one that is added to a cluster that is there, or the last one that goes, makes all anew that its
        Kubernetes provider declares, unless that has the cluster's `identifier`.
    protect: refuse to delete it. labels: for costs.
    """

    project: pulumi.Input[str]
    region: pulumi.Input[str]
    location: pulumi.Input[str]
    name: str
    service_account: pulumi.Input[str]
    release_channel: str = "REGULAR"
    authorized_networks: Sequence[str] = ()
    protect: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)


class NewCluster(pulumi.ComponentResource):
    """A small cluster for somebody who has none.

    Private nodes with a way out through Cloud NAT (for images of public registries), Workload Identity, a
    release channel, Dataplane V2, and a control plane that is reached by its DNS name, which asks for IAM
    rights before anything else, or by address from named networks only. One to three small nodes
    (e2-standard-4) run what is not a model; a regional cluster begins with one in each zone.
    Source: https://cloud.google.com/kubernetes-engine/docs/how-to/hardening-your-cluster

    Outputs:
        cluster: name, location, kubeconfig, and what lets one wait until the cluster can run pods.
    """

    cluster: Cluster

    def __init__(self, name: str, args: NewClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare network, way out, cluster and system nodes."""
        super().__init__("modelcar:google:NewCluster", name, None, opts)
        own = child(self, opts)
        args = replace(args, protect=args.protect or is_protected(opts))  # Google is told of both
        network, subnetwork = self._network(name, args, own)
        created = gcp.container.Cluster(
            name,
            **cluster_inputs(args),
            network=network.id,
            subnetwork=subnetwork.id,
            # Of the pool that is removed at once; otherwise it would run as Compute Engine's default
            # account, which many organisations have switched off.
            node_config={"service_account": args.service_account, "oauth_scopes": [SCOPE]},
            opts=pulumi.ResourceOptions.merge(
                own, pulumi.ResourceOptions(protect=args.protect or None, ignore_changes=["nodeConfig"])
            ),
        )
        system = gcp.container.NodePool(
            f"{name}-system",
            project=args.project,
            cluster=created.id,
            location=created.location,
            name="system",
            initial_node_count=1,
            autoscaling={"total_min_node_count": 1, "total_max_node_count": 3},
            management={"auto_repair": True, "auto_upgrade": True},
            node_config={
                "machine_type": "e2-standard-4",
                "image_type": "COS_CONTAINERD",
                "disk_size_gb": 50,
                "disk_type": "pd-balanced",
                "service_account": args.service_account,
                "oauth_scopes": [SCOPE],
                "workload_metadata_config": {"mode": "GKE_METADATA"},
                "shielded_instance_config": {"enable_secure_boot": True, "enable_integrity_monitoring": True},
                "metadata": {"disable-legacy-endpoints": "true"},
                "resource_labels": {**args.labels},
            },
            opts=pulumi.ResourceOptions.merge(
                own, pulumi.ResourceOptions(ignore_changes=["initialNodeCount", "nodeCount"])
            ),
        )
        dns_name = created.control_plane_endpoints_config.apply(_dns_name)
        if args.authorized_networks:
            endpoint, host = "ip", created.endpoint
            # Public, and a secret only as a part of what has the client's key.
            authority = pulumi.Output.unsecret(
                created.master_auth.apply(lambda auth: auth.cluster_ca_certificate or "")
            )
        else:
            endpoint, host = "dns", dns_name
            authority = pulumi.Output.from_input("")  # a public one vouches for the name
        # Without the system pool in them: Pulumi would make the GPU pools anew together with it.
        found = kubeconfig(created.name, host, authority)
        # Told together with the name: the next run compares both.
        told = created.name.apply(lambda _: endpoint)
        identifier = dns_name.apply(lambda one: one or None)
        self.cluster = Cluster(created.name, created.location, found, told, identifier, [system])
        self.register_outputs({"name": created.name, "location": created.location})

    def _network(
        self, name: str, args: NewClusterArgs, own: pulumi.ResourceOptions
    ) -> tuple[gcp.compute.Network, gcp.compute.Subnetwork]:
        network = gcp.compute.Network(
            name, project=args.project, name=args.name, auto_create_subnetworks=False, opts=own
        )
        subnetwork = gcp.compute.Subnetwork(
            name,
            project=args.project,
            region=args.region,
            name=args.name,
            network=network.id,
            ip_cidr_range=NODES_CIDR,
            private_ip_google_access=True,  # Artifact Registry without leaving Google's network
            secondary_ip_ranges=[
                {"range_name": "pods", "ip_cidr_range": PODS_CIDR},
                {"range_name": "services", "ip_cidr_range": SERVICES_CIDR},
            ],
            opts=own,
        )
        router = gcp.compute.Router(
            name, project=args.project, region=args.region, name=args.name, network=network.id, opts=own
        )
        gcp.compute.RouterNat(
            name,
            project=args.project,
            region=args.region,
            name=args.name,
            router=router.name,
            nat_ip_allocate_option="AUTO_ONLY",
            source_subnetwork_ip_ranges_to_nat="ALL_SUBNETWORKS_ALL_IP_RANGES",
            opts=own,
        )
        return network, subnetwork


def cluster_inputs(args: NewClusterArgs) -> dict[str, Any]:
    """Return the inputs of a created cluster, but for its network."""
    networks = args.authorized_networks
    inputs: dict[str, Any] = {
        "project": args.project,
        "location": args.location,
        "name": args.name,
        "deletion_protection": args.protect,
        # GKE cannot make a cluster without nodes; the pool it comes with is removed at once.
        "remove_default_node_pool": True,
        "initial_node_count": 1,
        "networking_mode": "VPC_NATIVE",
        "datapath_provider": "ADVANCED_DATAPATH",
        "ip_allocation_policy": {
            "cluster_secondary_range_name": "pods",
            "services_secondary_range_name": "services",
        },
        # Without an address GKE reports `enable_private_endpoint`, whatever it is told, and providers of
        # pulumi-gcp 9 see a difference in each run where it is not said.
        "private_cluster_config": {
            "enable_private_nodes": True,
            **({} if networks else {"enable_private_endpoint": True}),
        },
        "workload_identity_config": {"workload_pool": pulumi.Output.concat(args.project, ".svc.id.goog")},
        "release_channel": {"channel": args.release_channel},
        "enable_shielded_nodes": True,
        "enable_legacy_abac": False,
        "control_plane_endpoints_config": {
            "dns_endpoint_config": {"allow_external_traffic": not networks},
            "ip_endpoints_config": {"enabled": bool(networks)},
        },
        "security_posture_config": {"mode": "BASIC"},
        "resource_labels": {**args.labels},
    }
    if networks:
        blocks = [{"cidr_block": network, "display_name": "authorized"} for network in networks]
        inputs["master_authorized_networks_config"] = {"cidr_blocks": blocks}
    return inputs


def _dns_name(endpoints: Any) -> str:
    found = endpoints.dns_endpoint_config if endpoints else None
    return str(found.endpoint or "") if found else ""


def kubeconfig(
    name: pulumi.Output[str], host: pulumi.Output[str], authority: pulumi.Output[str]
) -> pulumi.Output[str]:
    """Return a kubeconfig that asks gcloud's plugin for a token at each use; it holds no secret.

    host: of the control plane, its DNS name or its address.
    authority: the CA certificate in base64; empty where a public one vouches for the host, as for DNS names.
    Source: https://cloud.google.com/kubernetes-engine/docs/how-to/cluster-access-for-kubectl
    """
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": "gke-gcloud-auth-plugin",
        "installHint": "gcloud components install gke-gcloud-auth-plugin",
        "provideClusterInfo": True,
    }

    def render(values: dict[str, str]) -> str:
        name, authority = values["name"], values["authority"]
        cluster = {"server": f"https://{values['host']}"} | (
            {"certificate-authority-data": authority} if authority else {}
        )
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": name, "cluster": cluster}],
                "users": [{"name": name, "user": {"exec": plugin}}],
                "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
                "current-context": name,
            }
        )

    return pulumi.Output.all(name=name, host=host, authority=authority).apply(render)
