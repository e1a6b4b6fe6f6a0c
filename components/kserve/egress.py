"""A NetworkPolicy for what a model's pods may connect to."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as kubernetes

from components.config.network import EgressSettings
from components.engine.options import OWNED, child, imported
from components.manifests.network import egress_policy


@dataclass(frozen=True)
class EgressPolicyArgs:
    """service, namespace: whose pods; settings: what they may do; imports: kinds that are there already.

    hooks: of the policy, `components.cluster.guard.guarded`.
    """

    service: str
    namespace: str
    settings: EgressSettings
    imports: Collection[str] = ()
    hooks: pulumi.ResourceHookBinding | None = None


class EgressPolicy(pulumi.ComponentResource):
    """A NetworkPolicy (networking.k8s.io/v1) that denies egress by default.

    Outputs:
        name: of the policy.
    """

    name: pulumi.Output[str]

    def __init__(self, name: str, args: EgressPolicyArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the policy."""
        super().__init__("modelcar:kserve:EgressPolicy", name, None, opts)
        own = f"{args.service}-egress"
        policy = kubernetes.networking.v1.NetworkPolicy(
            name,
            metadata={"name": own, "namespace": args.namespace, "annotations": OWNED},
            spec=egress_policy(args.service, args.settings),
            opts=imported(
                child(self, opts), "NetworkPolicy", args.imports, f"{args.namespace}/{own}", hooks=args.hooks
            ),
        )
        self.name = policy.metadata.apply(lambda metadata: str(metadata.name))
        self.register_outputs({"name": self.name})
