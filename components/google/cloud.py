"""Everything of a stack that is in Google Cloud."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pulumi

from components.config import disk
from components.config.google import GoogleSettings
from components.google import apis, cluster
from components.google.node_account import NodeServiceAccount, NodeServiceAccountArgs
from components.google.node_pool import GpuNodePool, GpuNodePoolArgs
from components.google.registry import ModelRegistry, ModelRegistryArgs


class GoogleCloud(pulumi.ComponentResource):
    """Registry, reader, cluster and GPU nodes of one stack.

    Outputs:
        registry: the component; images can be pushed once it is there.
        pools: the components by the pool's name; models can be placed once theirs is there.
        cluster: name, location and kubeconfig of the cluster.
        node_account: e-mail of the nodes' service account.
    """

    registry: ModelRegistry
    pools: dict[str, GpuNodePool]
    cluster: cluster.Cluster
    node_account: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        google: GoogleSettings,
        needs: Mapping[str, disk.DiskNeed],
        opts: pulumi.ResourceOptions | None = None,
        *,
        imports: Collection[str] = (),
    ) -> None:
        """Declare all of it.

        Args:
            imports: kinds of the registry's parts that are there already.
            needs: what the disks of a pool's nodes have to hold, by the pool's name.
        """
        super().__init__("modelcar:google:GoogleCloud", name, None, opts)
        labels = {"managed-by": "pulumi", "app": name, "stack": pulumi.get_stack().lower()}
        scanning = google.repository.vulnerability_scanning
        enabled = apis.enable(google.project, scanning=scanning, parent=self) if google.enable_apis else []
        own = pulumi.ResourceOptions(parent=self, depends_on=enabled)

        if google.nodes.service_account:
            self.node_account = pulumi.Output.from_input(google.nodes.service_account)
        else:
            arguments = NodeServiceAccountArgs(google.project, name, google.nodes.image_streaming)
            self.node_account = NodeServiceAccount(f"{name}-nodes", arguments, own).email
        served = ModelRegistryArgs(google, self.node_account, labels, imports)
        self.registry = ModelRegistry(f"{name}-registry", served, own)
        if google.cluster.create:
            arguments_ = cluster.NewClusterArgs(google, self.node_account, labels)
            self.cluster = cluster.NewCluster(str(google.cluster.name), arguments_, own).cluster
        else:
            self.cluster = cluster.adopted(google)
        self.pools = {}
        for nodes in google.all_pools:
            # The first one's name does not follow from its place in Google: its settings may be renamed.
            own_name = f"{name}-gpu" if nodes is google.nodes else f"{name}-gpu-{nodes.name}"
            arguments__ = GpuNodePoolArgs(
                google=google,
                nodes=nodes,
                cluster=self.cluster.name,
                location=self.cluster.location,
                service_account=self.node_account,
                need=needs.get(nodes.name) or disk.need([]),
                labels=labels,
            )
            self.pools[nodes.name] = GpuNodePool(own_name, arguments__, own)
        self.register_outputs({"registry": self.registry.path, "cluster": self.cluster.name})
