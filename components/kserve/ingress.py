"""A NetworkPolicy for who may connect to a model's pods."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as kubernetes

from components.config.network import IngressSettings
from components.engine.options import OWNED, child
from components.manifests.network import ingress_policy, ingress_policy_name


@dataclass(frozen=True)
class IngressPolicyArgs:
    """service, namespace: whose pods; settings: who may connect to them.

    hooks: of the policy, `components.cluster.guard.guarded`.
    """

    service: str
    namespace: str
    settings: IngressSettings
    hooks: pulumi.ResourceHookBinding | None = None


class IngressPolicy(pulumi.ComponentResource):
    """A NetworkPolicy (networking.k8s.io/v1) that denies ingress but to those who are named.

    Outputs:
        name: of the policy.
    """

    name: pulumi.Output[str]

    def __init__(
        self, name: str, args: IngressPolicyArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Declare the policy."""
        super().__init__("modelcar:kserve:IngressPolicy", name, None, opts)
        policy = kubernetes.networking.v1.NetworkPolicy(
            name,
            metadata={
                "name": ingress_policy_name(args.service),
                "namespace": args.namespace,
                "annotations": OWNED,
            },
            spec=ingress_policy(args.service, args.settings),
            opts=pulumi.ResourceOptions.merge(child(self, opts), pulumi.ResourceOptions(hooks=args.hooks)),
        )
        self.name = policy.metadata.apply(lambda metadata: str(metadata.name))
        self.register_outputs({"name": self.name})
