"""Google's components, for other languages."""

# Without `from __future__ import annotations`: Pulumi reads the types themselves.
import pulumi

from modelcar_kserve import google
from modelcar_kserve import provider_types as types
from modelcar_kserve.provider_arguments import Provided, arguments, told

Options = pulumi.ResourceOptions | None


class ModelRegistry(Provided):
    """An Artifact Registry repository for modelcars, readable by the nodes that serve them."""

    path: pulumi.Output[str]
    """REGION-docker.pkg.dev/PROJECT/REPOSITORY, the registry of a ModelcarImage."""

    def __init__(self, name: str, args: types.ModelRegistryArgs, opts: Options = None) -> None:
        """Declare the repository, or adopt it, and the grant on it."""
        super().__init__(name, opts)
        self.make(google.ModelRegistry, google.ModelRegistryArgs, name, args, opts)


class NodeServiceAccount(Provided):
    """A service account with the least that a GKE node needs; without keys."""

    email: pulumi.Output[str]
    """E-mail of the account; known once it has its roles."""

    def __init__(self, name: str, args: types.NodeServiceAccountArgs, opts: Options = None) -> None:
        """Declare the account and its roles."""
        super().__init__(name, opts)
        self.make(google.NodeServiceAccount, google.NodeServiceAccountArgs, name, args, opts)


class GpuNodePool(Provided):
    """Nodes with GPUs, from none to as many as the arguments allow, on disks that hold the model."""

    name: pulumi.Output[str]
    """Name of the node pool."""
    disk_gb: pulumi.Output[int]
    """Size of each node's boot disk, in GB."""

    def __init__(self, name: str, args: types.GpuNodePoolArgs, opts: Options = None) -> None:
        """Declare the pool."""
        super().__init__(name, opts)
        self.make(google.GpuNodePool, google.GpuNodePoolArgs, name, args, opts)


class GoogleCloud(Provided):
    """Registry, reader, cluster and GPU nodes together."""

    registry: pulumi.Output[str]
    """REGION-docker.pkg.dev/PROJECT/REPOSITORY, the registry of a ModelcarImage."""
    cluster_name: pulumi.Output[str]
    """Name of the cluster."""
    cluster_location: pulumi.Output[str]
    """Region or zone of the cluster."""
    kubeconfig: pulumi.Output[str]
    """A kubeconfig without credentials, for the other components."""
    cluster_identifier: pulumi.Output[str | None]
    """What tells the cluster from every other one, for the other components; none without a DNS name."""
    node_account: pulumi.Output[str]
    """E-mail of the nodes' service account."""
    pools: pulumi.Output[list[str]]
    """Names of the pools of GPU nodes; known once these are there."""

    def __init__(self, name: str, args: types.GoogleCloudArgs, opts: Options = None) -> None:
        """Declare all of it."""
        super().__init__(name, opts)
        with told(name, args):
            made = google.GoogleCloud(name, arguments(google.GoogleCloudArgs, args), self.inner(opts))
        self.tell(
            made,
            registry=made.registry.path,
            cluster_name=made.cluster.name,
            cluster_location=made.cluster.location,
            kubeconfig=made.cluster.kubeconfig,
            cluster_identifier=made.cluster.identifier,
            pools=pulumi.Output.all(*(pool.name for pool in made.pools.values())),
        )


COMPONENTS: list[type[pulumi.ComponentResource]] = [
    *(ModelRegistry, NodeServiceAccount, GpuNodePool, GoogleCloud),
]
