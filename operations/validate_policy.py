"""`validate`: whether NetworkPolicies deny the pods' egress. They add up: one that allows all undoes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import Any

from components.cluster.access import JSON, Cluster, ClusterError
from components.cluster.nodes import selects
from components.config.problems import NAMESPACE
from components.config.settings import Settings
from components.manifests.network import egress_policy
from operations.next_step import brought
from operations.validate_pods import name_of
from operations.validation_report import Line

_NAME = "egress denied by policy"
#: Port of names; to ask for them anywhere is no way to a hub.
_DNS = 53
#: Addresses by version, from which on hardly any is denied: half of all, or all public ones (2000::/3).
_WIDE = {4: 2**31, 6: 2**125}
_Network = IPv4Network | IPv6Network


def denied(cluster: Cluster, settings: Settings, pods: Sequence[JSON]) -> Line:
    """Tell whether policies deny the egress of all these pods."""
    path = f"/apis/networking.k8s.io/v1/namespaces/{settings.namespace}/networkpolicies"
    try:
        found = (cluster.get(path) or {}).get("items") or []
    except ClusterError as error:
        return Line(_NAME, None, f"not seen: {error}", "you need the right to list NetworkPolicies")
    policies = [one for one in found if "Egress" in (one["spec"].get("policyTypes") or [])]
    of_pod = {name_of(pod): [one for one in policies if _selects(one, pod)] for pod in pods}
    free = [name for name, selecting in of_pod.items() if not selecting]
    if free:
        fix = f"pulumi config set --path {NAMESPACE}:egress.restrict true, and {brought(settings)}"
        seen = "no NetworkPolicy holds the pod's egress back"
        return Line(_NAME, False, seen + (f": {', '.join(free)}" if len(pods) > 1 else ""), fix)
    rules = {_name(one): one["spec"].get("egress") or [] for ones in of_pod.values() for one in ones}
    if undone := _undone(rules):
        seen = f"NetworkPolicy {', '.join(undone)} allows it to most addresses or all, and policies add up"
        delete = f"kubectl -n {settings.namespace} delete networkpolicy {' '.join(undone)}"
        fix = f"name addresses in its rules, or delete it: {delete}"
        return Line(_NAME, False, seen, fix)
    declared = (
        egress_policy(settings.service_name, settings.egress)["egress"] if settings.egress.restrict else []
    )
    wider = [name for name, own in rules.items() if any(rule not in declared for rule in own)]
    seen = f"NetworkPolicy {', '.join(rules)}"
    if wider:
        seen += f"; {', '.join(wider)} allows more than {NAMESPACE}:egress says"
    return Line(_NAME, True, seen)


def _name(policy: JSON) -> str:
    return str(policy["metadata"]["name"])


def _selects(policy: JSON, pod: JSON) -> bool:
    """Tell whether a policy is for a pod."""
    return selects(policy["spec"].get("podSelector") or {}, pod["metadata"].get("labels") or {})


def _undone(rules: Mapping[str, Sequence[JSON]]) -> list[str]:
    """Return the policies that allow almost every address, alone or else together."""
    alone = [name for name, own in rules.items() if _is_wide(own)]
    if alone or not _is_wide([rule for own in rules.values() for rule in own]):
        return alone
    return [name for name, own in rules.items() if any(map(_networks, own))]


def _is_wide(rules: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether egress rules allow almost every address, by other ports than that of names."""
    found: list[_Network] = []
    for rule in rules:
        if not rule.get("to") and not _is_of_names(rule):
            return True
        found += _networks(rule)
    for version, least in _WIDE.items():
        joined = collapse_addresses(one for one in found if one.version == version)  # type: ignore[type-var]
        if sum(one.num_addresses for one in joined) >= least:
            return True
    return False


def _is_of_names(rule: Mapping[str, Any]) -> bool:
    ports = rule.get("ports") or []
    return bool(ports) and all(port.get("port") == _DNS and "endPort" not in port for port in ports)


def _networks(rule: Mapping[str, Any]) -> list[_Network]:
    """Return the networks that a rule allows, less those that it leaves out."""
    if _is_of_names(rule):
        return []
    return [part for one in rule.get("to") or [] if "ipBlock" in one for part in _parts(one["ipBlock"])]


def _parts(block: Mapping[str, Any]) -> list[_Network]:
    parts: list[Any] = [ip_network(block["cidr"], strict=False)]
    for text in block.get("except") or []:
        left_out: Any = ip_network(text, strict=False)
        parts = [
            rest
            for part in parts
            for rest in (
                part.address_exclude(left_out)
                if left_out.subnet_of(part)
                else ([] if part.subnet_of(left_out) else [part])
            )
        ]
    return parts
