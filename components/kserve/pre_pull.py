"""Have the image on the nodes that are there before a pod asks for it (`modelcar:prePull`).

For pools that keep nodes (`nodes.minNodes`): a new version is pulled while the former one serves, and a pod
that moves finds it. It makes no start on a new node faster: there both pull at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes

from components.cluster.guard import ClusterAccess
from components.cluster.rollout import await_pulled
from components.config.arguments import as_arguments
from components.config.checks import scheduling
from components.config.model_spec import ModelSpec
from components.config.scheduling import SchedulingSettings
from components.engine.inputs import Arguments, is_known
from components.engine.options import OWNED, child
from components.engine.secrets import used
from components.engine.this_stack import marked
from components.engine.threads import in_thread
from components.kserve.spec import (
    checked_account,
    checked_namespace,
    checked_storage_uri,
    in_own_words,
    validated,
)
from components.manifests.pre_pull import daemon_set_name, daemon_set_spec, network_policy
from components.manifests.service import labels
from modelcar.errors import InputError

#: Arguments, by the settings of a stack that say the same, where a stack has another name.
_ARGUMENTS = {"serviceName": "service", "gpuCount": "gpus"}


@dataclass(frozen=True, kw_only=True)
class PrePullArgs(Arguments):
    """What is pulled, and to which nodes.

    storage_uri: URI of the modelcar, `oci://…@sha256:…`.
    server_image: Image of the model server, by digest.
    service: Name of the InferenceService that will use them.
    namespace: Namespace of the InferenceService.
    gpus: GPUs of one pod of the service. With GPUs, and neither a pool nor a selector or affinity, the images
        are pulled to nodes whose labels say that they have GPUs (docs/scheduling.md).
    scheduling: Which nodes take the service's pods.
    node_pool: Pool of GPU nodes that the service's pods run on (GKE).
    service_account: ServiceAccount whose pull secrets are used; by default the namespace's own.
    access: How the cluster is asked whether the nodes have the images; without it nothing waits for them.
    start_timeout_seconds: Seconds that it may take.
    closed: Deny its pods every connection, by a NetworkPolicy: they run both images, and need none.
    """

    storage_uri: pulumi.Input[str]
    server_image: str
    service: str
    namespace: pulumi.Input[str]
    gpus: int = 1
    scheduling: SchedulingSettings = field(default_factory=SchedulingSettings)
    node_pool: pulumi.Input[str] | None = None
    service_account: pulumi.Input[str] | None = None
    access: ClusterAccess | None = None
    start_timeout_seconds: int = 1800
    closed: bool = True

    def spec(self) -> ModelSpec:
        """Return all of it that is plain, checked.

        Raises:
            modelcar.errors.InputError: with everything that is wrong.
        """
        values = {
            "service_name": self.service,
            "server_image": self.server_image,
            "gpu_count": self.gpus,
            "scheduling": self.scheduling,
            "start_timeout_seconds": self.start_timeout_seconds,
            "node_pool": self.node_pool if is_known(self.node_pool) else None,
        }
        spec = validated(values, _ARGUMENTS)
        if found := list(as_arguments(scheduling.problems(spec), _ARGUMENTS)):
            raise InputError(found)
        return spec


class PrePull(pulumi.ComponentResource):
    """A DaemonSet whose pods run the modelcar, and do nothing: the image is pulled, and stays.

    And a NetworkPolicy that denies these pods every connection.

    Outputs:
        storage_uri: what is pulled; known once every node that is there has it.

    Raises:
        modelcar.errors.InputError: plain arguments are wrong, each with what is allowed and the fix.
        pulumi.RunError: (inside of the output) a node does not get it in time.
    """

    storage_uri: pulumi.Output[str]

    def __init__(self, name: str, args: PrePullArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the DaemonSet."""
        super().__init__("modelcar:kserve:PrePull", name, None, opts)
        args = replace(args, service_account=checked_account(args.service_account))
        model = args.spec()
        namespace = checked_namespace(args.namespace)
        metadata: Any = {
            "name": daemon_set_name(model),
            "namespace": namespace,
            "labels": labels(model),
            "annotations": {**OWNED, "pulumi.com/skipAwait": "true"},  # awaited here, with reasons
        }
        uri = pulumi.Output.from_input(checked_storage_uri(args.storage_uri))
        spec: Any = pulumi.Output.all(uri, args.service_account, args.node_pool).apply(
            lambda found: daemon_set_spec(model.on_pool(found[2]), found[0], found[1])
        )
        before = []
        if args.closed:
            before.append(
                kubernetes.networking.v1.NetworkPolicy(
                    name,
                    metadata={
                        "name": daemon_set_name(model),
                        "namespace": namespace,
                        "annotations": marked(),
                    },
                    spec=network_policy(model),
                    opts=child(self, opts),
                )
            )
        daemon_set = kubernetes.apps.v1.DaemonSet(
            name, metadata=metadata, spec=spec, opts=child(self, opts, *before)
        )
        self.storage_uri = _pulled(daemon_set, uri, model, namespace, args)
        self.register_outputs({"storageUri": self.storage_uri})


def _pulled(
    daemon_set: kubernetes.apps.v1.DaemonSet,
    uri: pulumi.Output[str],
    model: ModelSpec,
    namespace: pulumi.Input[str],
    args: PrePullArgs,
) -> pulumi.Output[str]:
    access = args.access
    if access is None or pulumi.runtime.is_dry_run():
        return pulumi.Output.all(uri, daemon_set.urn).apply(lambda found: str(found[0]))

    async def wait(found: list[Any]) -> str:
        storage_uri, _, kubeconfig, space, pool = found
        own = model.on_pool(pool).reached_at(access.place(kubeconfig), str(space))
        with in_own_words():
            await in_thread(await_pulled, own, daemon_set_name(model), pulumi.log.info)
        return str(storage_uri)

    reached = used(access.kubeconfig)
    return pulumi.Output.all(uri, daemon_set.urn, reached, namespace, args.node_pool).apply(wait)
