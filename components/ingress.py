"""Who may connect to a model's pods: everybody in the cluster, or the pods and networks that the stack names.

A model server asks nobody for a name, so that any pod of the cluster can use the model. This keeps other
tenants out. It takes a network plugin that enforces NetworkPolicies; `python -m operations validate` proves
that it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pulumi
import pulumi_kubernetes as kubernetes

from components.egress import NAMESPACE_LABEL, SERVICE_LABEL
from components.fields import Label, Refused, network_field
from components.google.settings import Section
from components.options import OWNED, child

#: Namespace of Knative's activator and autoscaler, without which no request and no replica comes.
KNATIVE = "knative-serving"


_NETWORK = network_field("10.0.0.0/8", Refused("lets everybody in", "networks", "remove modelcar:ingress"))


class IngressSettings(Section):
    """`modelcar:ingress`: where it is set, nobody connects to the pods but these; their own node always may.

    namespaces: whose pods may: of the gateway, of those who ask, of what collects metrics.
    networks: that may, as those of a load balancer (GKE: 35.191.0.0/16 and 130.211.0.0/22).
    """

    namespaces: tuple[Label, ...] = ()
    networks: tuple[Annotated[str, _NETWORK], ...] = ()


@dataclass(frozen=True)
class IngressPolicyArgs:
    """service, namespace: whose pods; settings: who may connect to them.

    hooks: of the policy, `components.guard.guarded`.
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
                "name": policy_name(args.service),
                "namespace": args.namespace,
                "annotations": OWNED,
            },
            spec=ingress_policy(args.service, args.settings),
            opts=pulumi.ResourceOptions.merge(child(self, opts), pulumi.ResourceOptions(hooks=args.hooks)),
        )
        self.name = policy.metadata.apply(lambda metadata: str(metadata.name))
        self.register_outputs({"name": self.name})


def policy_name(service: str) -> str:
    """Return the name of an InferenceService's policy."""
    return f"{service}-ingress"


def ingress_policy(service: str, settings: IngressSettings) -> Any:
    """Return the spec of the policy; egress is not touched.

    The node of a pod, whose kubelet probes it, is let in by every network plugin:
    https://kubernetes.io/docs/concepts/services-networking/network-policies/
    """
    sources: list[dict[str, Any]] = [{"ipBlock": {"cidr": cidr}} for cidr in settings.networks]
    if settings.namespaces:
        named = {"key": NAMESPACE_LABEL, "operator": "In", "values": list(settings.namespaces)}
        sources.insert(0, {"namespaceSelector": {"matchExpressions": [named]}})
    return {
        "podSelector": {"matchLabels": {SERVICE_LABEL: service}},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": sources}] if sources else [],
    }
