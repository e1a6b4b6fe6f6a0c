"""`validate`: whether NetworkPolicies deny the pods' egress. They add up: one that allows all undoes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_network
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
    if undone := [name for name, own in rules.items() if any(map(_allows_all, own))]:
        seen = f"NetworkPolicy {', '.join(undone)} allows it to every address, and policies add up"
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


def _allows_all(rule: Mapping[str, Any]) -> bool:
    """Tell whether an egress rule allows every address, by other ports than that of names."""
    ports = rule.get("ports") or []
    if ports and all(port.get("port") == _DNS and "endPort" not in port for port in ports):
        return False
    to: Iterable[Mapping[str, Any]] = rule.get("to") or []
    return not to or any(_is_all(one["ipBlock"]) for one in to if "ipBlock" in one)


def _is_all(block: Mapping[str, Any]) -> bool:
    return not block.get("except") and ip_network(block["cidr"], strict=False).prefixlen == 0
