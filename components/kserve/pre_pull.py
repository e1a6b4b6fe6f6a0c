"""`modelcar:prePull`: have the image on the nodes that are there before a pod asks for it.

For pools that keep nodes (`nodes.minNodes`): a new version is pulled while the former one serves, and a pod
that moves finds it. It makes no start on a new node faster: there both pull at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes

from components.cluster.rollout import await_pulled
from components.config.settings import Settings
from components.engine.options import OWNED, child
from components.engine.threads import in_thread
from components.manifests.pre_pull import daemon_set_name, daemon_set_spec
from components.manifests.service import labels


@dataclass(frozen=True)
class PrePullArgs:
    """storage_uri: what is pulled; settings: the stack's.

    service_account: whose pull secrets it takes; the namespace's default one where None.
    kubeconfig: of the cluster, where the settings have none; it is asked whether the nodes have it.
    """

    storage_uri: pulumi.Input[str]
    settings: Settings
    service_account: pulumi.Input[str] | None = None
    kubeconfig: pulumi.Input[str] | None = None


class PrePull(pulumi.ComponentResource):
    """A DaemonSet whose pods run the modelcar, and do nothing: the image is pulled, and stays.

    Outputs:
        storage_uri: what is pulled; known once every node that is there has it.

    Raises (inside of the output):
        pulumi.RunError: a node does not get it in time.
    """

    storage_uri: pulumi.Output[str]

    def __init__(self, name: str, args: PrePullArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the DaemonSet."""
        super().__init__("modelcar:kserve:PrePull", name, None, opts)
        settings = args.settings
        metadata: Any = {
            "name": daemon_set_name(settings),
            "namespace": settings.namespace,
            "labels": labels(settings),
            "annotations": {**OWNED, "pulumi.com/skipAwait": "true"},  # awaited here, with reasons
        }
        uri = pulumi.Output.from_input(args.storage_uri)
        spec: Any = pulumi.Output.all(uri, args.service_account).apply(
            lambda found: daemon_set_spec(settings, *found)
        )
        daemon_set = kubernetes.apps.v1.DaemonSet(name, metadata=metadata, spec=spec, opts=child(self, opts))
        self.storage_uri = _pulled(daemon_set, uri, args)
        self.register_outputs({"storageUri": self.storage_uri})


def _pulled(
    daemon_set: kubernetes.apps.v1.DaemonSet, uri: pulumi.Output[str], args: PrePullArgs
) -> pulumi.Output[str]:
    settings = args.settings
    if pulumi.runtime.is_dry_run() or not settings.await_ready:
        return pulumi.Output.all(uri, daemon_set.urn).apply(lambda found: str(found[0]))

    async def wait(found: list[Any]) -> str:

        storage_uri, _, kubeconfig = found
        own = settings.reached_by(kubeconfig)
        await in_thread(await_pulled, own, daemon_set_name(settings), pulumi.log.info)
        return str(storage_uri)

    return pulumi.Output.all(uri, daemon_set.urn, args.kubeconfig).apply(wait)
