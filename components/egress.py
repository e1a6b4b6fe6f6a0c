"""What a model's pods may connect to: nothing, but names, and what the stack names.

A model server that must not ask a hub is told so by its environment; this makes it impossible. It takes a
network plugin that enforces NetworkPolicies (GKE: Dataplane V2, or network policy enforcement);
`python -m operations validate` proves that it is.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any

import pulumi
import pulumi_kubernetes as kubernetes
from pydantic import Field

from components.fields import Refused, network_field
from components.google.settings import Section
from components.options import OWNED, child, imported

#: Label that KServe gives the pods of an InferenceService.
SERVICE_LABEL = "serving.kserve.io/inferenceservice"
#: Label that Kubernetes gives every namespace (1.22 and later).
NAMESPACE_LABEL = "kubernetes.io/metadata.name"
#: Where nodes of GKE answer questions for names, outside of any namespace: NodeLocal DNSCache, Cloud DNS.
#: https://cloud.google.com/kubernetes-engine/docs/how-to/nodelocal-dns-cache
NODE_DNS = ("169.254.20.10/32", "169.254.169.254/32")


_NETWORK = network_field(
    "10.0.0.0/8",
    Refused("allows everything, the hub included", "networks", "set modelcar:egress.restrict false"),
)


class EgressRule(Section):
    """A network that the pods may connect to.

    cidr: of the network.
    ports: TCP; all where empty.
    """

    cidr: Annotated[str, _NETWORK]
    ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = ()


class EgressSettings(Section):
    """`modelcar:egress`.

    restrict: let the pods connect to nothing but what follows.
    dns: let them ask for names.
    allow: networks that they may connect to.
    """

    restrict: bool = True
    dns: bool = True
    allow: tuple[EgressRule, ...] = ()


@dataclass(frozen=True)
class EgressPolicyArgs:
    """service, namespace: whose pods; settings: what they may do; imports: kinds that are there already.

    hooks: of the policy, `components.guard.guarded`.
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
            spec=network_policy(args.service, args.settings),
            opts=imported(
                child(self, opts), "NetworkPolicy", args.imports, f"{args.namespace}/{own}", hooks=args.hooks
            ),
        )
        self.name = policy.metadata.apply(lambda metadata: str(metadata.name))
        self.register_outputs({"name": self.name})


def network_policy(service: str, settings: EgressSettings) -> Any:
    """Return the spec of the policy; ingress is not touched."""
    rules: list[dict[str, Any]] = []
    if settings.dns:
        resolvers: list[dict[str, Any]] = [
            {"namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: "kube-system"}}},
            *({"ipBlock": {"cidr": cidr}} for cidr in NODE_DNS),
        ]
        ports = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
        rules.append({"to": resolvers, "ports": ports})
    for rule in settings.allow:
        allowed = [{"port": port, "protocol": "TCP"} for port in rule.ports]
        rules.append({"to": [{"ipBlock": {"cidr": rule.cidr}}], **({"ports": allowed} if allowed else {})})
    return {
        "podSelector": {"matchLabels": {SERVICE_LABEL: service}},
        "policyTypes": ["Egress"],
        "egress": rules,
    }
