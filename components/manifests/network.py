"""NetworkPolicies of a model's pods (networking.k8s.io/v1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.config.network import EgressSettings, IngressSettings

#: Label that KServe gives the pods of an InferenceService.
SERVICE_LABEL = "serving.kserve.io/inferenceservice"
#: Label that Kubernetes gives every namespace (1.22 and later).
NAMESPACE_LABEL = "kubernetes.io/metadata.name"
#: Where nodes of GKE answer questions for names, outside of any namespace: NodeLocal DNSCache, Cloud DNS.
#: https://cloud.google.com/kubernetes-engine/docs/how-to/nodelocal-dns-cache
NODE_DNS = ("169.254.20.10/32", "169.254.169.254/32")


def egress_policy(service: str, settings: EgressSettings) -> Any:
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


def closed_policy(pods: Mapping[str, str]) -> Any:
    """Return the spec of a policy that denies pods with these labels everything, in both directions."""
    return {
        "podSelector": {"matchLabels": dict(pods)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [],
        "egress": [],
    }


def ingress_policy_name(service: str) -> str:
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
