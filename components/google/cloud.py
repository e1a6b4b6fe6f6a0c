"""Everything of a stack that is in Google Cloud."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import pulumi

from components.config import disk
from components.config.arguments import as_arguments
from components.config.checks.google import of_google, same_names
from components.config.google import GoogleSettings
from components.engine.inputs import Arguments
from components.engine.options import child, is_protected, renamed
from components.google import adopted_cluster, apis, cluster
from components.google.names import label_value
from components.google.node_account import NodeServiceAccount, NodeServiceAccountArgs
from components.google.node_pool import GpuNodePool, GpuNodePoolArgs
from components.google.registry import ModelRegistry, ModelRegistryArgs
from modelcar.errors import InputError, refuse


@dataclass(frozen=True, kw_only=True)
class GoogleCloudArgs(Arguments):
    """All that a stack has in Google Cloud.

    settings: Project, registry, cluster and nodes.
    needs: What the disks of a pool's nodes have to hold, by the pool's name.
    imports: Kinds of the registry's parts that are there already.
    endpoint: By which an adopted cluster's control plane is reached: `ip`, its address, where it has one;
        `dns`, its DNS name; `auto`, the name where it lets in who comes from outside of Google, else as `ip`.
        Another one than before makes all anew that the cluster's Kubernetes provider declares, unless that
        has the cluster's `identifier`.
    """

    settings: GoogleSettings
    needs: Mapping[str, disk.DiskNeed] = field(default_factory=dict)
    imports: Collection[Literal["Repository", "RepositoryIamMember"]] = ()
    endpoint: adopted_cluster.Endpoint = "ip"

    def __post_init__(self) -> None:
        """Refuse an endpoint that there is not, and settings that Google would refuse together.

        Raises:
            modelcar.errors.InputError: with everything that is wrong.
        """
        super().__post_init__()
        known = get_args(adopted_cluster.Endpoint)
        if self.endpoint not in known:
            raise refuse("endpoint", self.endpoint, allowed=", ".join(known), fix="choose one")
        found = [*same_names(self.settings), *of_google(self.settings, self.needs)]
        if problems := list(as_arguments(found, {"google": "settings"})):
            raise InputError(problems)


class GoogleCloud(pulumi.ComponentResource):
    """Registry, reader, cluster and GPU nodes of one stack.

    A program may have several, as for two projects or regions. Run `up` once with this version before you add
    another one to a stack that a version before 0.4.0 made: Pulumi cannot tell then whose the former names
    are. `protect` in the options protects all of it, and not the registry and the cluster alone.

    Outputs:
        registry: the component; images can be pushed once it is there.
        pools: the components by the pool's name; models can be placed once theirs is there.
        cluster: name, location, kubeconfig and identifier of the cluster.
        node_account: e-mail of the nodes' service account.
    """

    registry: ModelRegistry
    pools: dict[str, GpuNodePool]
    cluster: cluster.Cluster
    node_account: pulumi.Output[str]

    def __init__(self, name: str, args: GoogleCloudArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare all of it."""
        super().__init__("modelcar:google:GoogleCloud", name, None, opts)
        google = args.settings
        stack = pulumi.get_stack()
        labels = {"managed-by": "pulumi", "app": label_value(name), "stack": label_value(stack)}
        enabled = apis.enable(name, google, child(self, opts)) if google.enable_apis else []
        own = child(self, opts, *enabled)

        reader: pulumi.Input[str]
        roles: list[pulumi.Resource] = []  # that nodes start after
        if google.nodes.service_account:
            reader = google.nodes.service_account
        else:
            # Accounts are the whole project's, and several stacks can be in one.
            account = NodeServiceAccountArgs(
                project=google.project,
                purpose="-".join(dict.fromkeys((name, pulumi.get_project(), stack))),
                image_streaming=google.image_streaming,
            )
            nodes_account = NodeServiceAccount(f"{name}-nodes", account, own)
            reader, roles = nodes_account.email, [nodes_account]
        self.node_account = pulumi.Output.from_input(reader)
        repository = ModelRegistryArgs(
            project=google.project,
            region=google.region,
            reader=reader,
            repository=google.repository,
            protect=google.protect,
            labels=labels,
            imports=args.imports,
        )
        self.registry = ModelRegistry(f"{name}-registry", repository, own)
        if google.cluster.create:
            made = cluster.NewClusterArgs(
                project=google.project,
                region=google.region,
                location=str(google.location),
                name=str(google.cluster.name),
                service_account=self.node_account,
                release_channel=google.cluster.release_channel,
                authorized_networks=google.cluster.authorized_networks,
                protect=google.protect or is_protected(opts),
                labels=labels,
            )
            after = renamed(child(self, opts, *enabled, *roles), made.name)
            self.cluster = cluster.NewCluster(f"{name}-{made.name}", made, after).cluster
        else:
            self.cluster = adopted_cluster.adopted(google, args.endpoint, child(self, opts))
        self.pools = {}
        for nodes in google.all_pools:
            # The first one's name does not follow from its place in Google: its settings may be renamed.
            own_name = f"{name}-gpu" if nodes is google.nodes else f"{name}-gpu-{nodes.name}"
            pool = GpuNodePoolArgs(
                project=google.project,
                cluster=self.cluster.name,
                location=self.cluster.location,
                nodes=nodes,
                service_account=self.node_account,
                zones=google.zones_of(nodes),
                need=args.needs.get(nodes.name),
                labels=labels,
            )
            after = child(self, opts, *enabled, *roles, *self.cluster.ready)
            self.pools[nodes.name] = GpuNodePool(own_name, pool, after)
        self.register_outputs({"registry": self.registry.path, "cluster": self.cluster.name})
