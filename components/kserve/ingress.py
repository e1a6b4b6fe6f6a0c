"""A NetworkPolicy for who may connect to a model's pods."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as kubernetes

from components.cluster.guard import ClusterAccess, guarded
from components.config.network import IngressSettings
from components.engine.inputs import Arguments
from components.engine.options import child
from components.engine.this_stack import marked
from components.kserve.spec import checked_name, checked_namespace
from components.manifests.network import ingress_policy, ingress_policy_name


@dataclass(frozen=True, kw_only=True)
class IngressPolicyArgs(Arguments):
    """Which pods, and who may connect to them.

    service: Name of the InferenceService whose pods the policy is for.
    namespace: Namespace of the InferenceService.
    settings: Who may connect to the pods.
    access: How the cluster is asked whether somebody else has such an object; not asked without it.
    """

    service: str
    namespace: pulumi.Input[str]
    settings: IngressSettings
    access: ClusterAccess | None = None


class IngressPolicy(pulumi.ComponentResource):
    """A NetworkPolicy (networking.k8s.io/v1) that denies ingress but to those who are named.

    Outputs:
        name: of the policy.

    Raises:
        modelcar.errors.InputError: a name is wrong.
    """

    name: pulumi.Output[str]

    def __init__(
        self, name: str, args: IngressPolicyArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Declare the policy."""
        super().__init__("modelcar:kserve:IngressPolicy", name, None, opts)
        checked_name("service", args.service)
        hooks = guarded("IngressPolicy", name, args.access)
        policy = kubernetes.networking.v1.NetworkPolicy(
            name,
            metadata={
                "name": ingress_policy_name(args.service),
                "namespace": checked_namespace(args.namespace),
                "annotations": marked(),
            },
            spec=ingress_policy(args.service, args.settings),
            opts=pulumi.ResourceOptions.merge(child(self, opts), pulumi.ResourceOptions(hooks=hooks)),
        )
        self.name = policy.metadata.apply(lambda metadata: str(metadata.name))
        self.register_outputs({"name": self.name})
