"""A NetworkPolicy for what a model's pods may connect to."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

import pulumi
import pulumi_kubernetes as kubernetes

from components.cluster.guard import ClusterAccess, guarded
from components.config.network import EgressSettings
from components.engine.inputs import Arguments
from components.engine.options import child, imported
from components.engine.this_stack import marked
from components.kserve.spec import checked_name, checked_namespace, identity
from components.manifests.network import egress_policy
from modelcar.errors import refuse


@dataclass(frozen=True, kw_only=True)
class EgressPolicyArgs(Arguments):
    """Which pods, and what they may connect to.

    service: Name of the InferenceService whose pods the policy is for.
    namespace: Namespace of the InferenceService.
    settings: What the pods may connect to.
    access: How the cluster is asked whether somebody else has such an object; not asked without it.
    imports: Kinds of objects that are there already (NetworkPolicy), and are taken over as they are.
    """

    service: str
    namespace: pulumi.Input[str]
    settings: EgressSettings = field(default_factory=EgressSettings)
    access: ClusterAccess | None = None
    imports: Collection[Literal["NetworkPolicy"]] = ()


class EgressPolicy(pulumi.ComponentResource):
    """A NetworkPolicy (networking.k8s.io/v1) that denies egress by default.

    Outputs:
        name: of the policy.

    Raises:
        modelcar.errors.InputError: a name is wrong, or settings restrict nothing; a policy without rules
            denies everything.
    """

    name: pulumi.Output[str]

    def __init__(self, name: str, args: EgressPolicyArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the policy."""
        super().__init__("modelcar:kserve:EgressPolicy", name, None, opts)
        if not args.settings.restrict:
            fix = "leave the component out: pods without a policy may connect to everything"
            raise refuse("settings.restrict", args.settings.restrict, allowed="true", fix=fix)
        checked_name("service", args.service)
        own, namespace = f"{args.service}-egress", checked_namespace(args.namespace)
        policy = kubernetes.networking.v1.NetworkPolicy(
            name,
            metadata={"name": own, "namespace": namespace, "annotations": marked()},
            spec=egress_policy(args.service, args.settings),
            opts=imported(
                child(self, opts),
                "NetworkPolicy",
                args.imports,
                identity(namespace, own, args.imports),
                hooks=guarded("EgressPolicy", name, args.access),
            ),
        )
        self.name = policy.metadata.apply(lambda metadata: str(metadata.name))
        self.register_outputs({"name": self.name})
