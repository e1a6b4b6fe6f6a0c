"""What a model's pods may connect to: nothing, but names, and what the stack names.

A model server that must not ask a hub is told so by its environment; this makes it impossible. It takes a
network plugin that enforces NetworkPolicies (GKE: Dataplane V2, or network policy enforcement);
`python -m operations validate` proves that it is.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from components.config.fields import Label, Refused, network_field, not_everything, require_narrow
from components.config.section import Section

_EVERYTHING = Refused("allows everything, the hub included", "networks", "set modelcar:egress.restrict false")
_DESTINATION = network_field("10.0.0.0/8", _EVERYTHING)


class EgressRule(Section):
    """A network that the pods may connect to.

    cidr: the network, as 10.0.0.0/8; a single address as 10.0.0.5/32.
    ports: TCP ports; all where empty.
    """

    cidr: Annotated[str, _DESTINATION]
    ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = ()


def _narrow(rules: tuple[EgressRule, ...]) -> tuple[EgressRule, ...]:
    for port in {None, *(port for rule in rules for port in rule.ports)}:
        reached = (rule.cidr for rule in rules if not rule.ports or port in rule.ports)
        require_narrow(reached, _EVERYTHING)
    return rules


class EgressSettings(Section):
    """`modelcar:egress`: what the pods may connect to.

    restrict: let the pods connect to nothing but what follows.
    dns: let them ask for names.
    allow: networks that they may connect to.
    """

    restrict: bool = True
    dns: bool = True
    allow: Annotated[tuple[EgressRule, ...], AfterValidator(_narrow)] = ()


#: Namespace of Knative's activator and autoscaler, without which no request and no replica comes.
KNATIVE = "knative-serving"


_EVERYBODY = Refused("lets everybody in", "networks", "remove modelcar:ingress")
_SOURCE = network_field("10.0.0.0/8", _EVERYBODY)


class IngressSettings(Section):
    """`modelcar:ingress`: where it is set, nobody connects to the pods but these; their own node always may.

    namespaces: namespaces whose pods may connect: of the gateway, of those who ask, of what collects metrics.
    networks: networks that may connect, as those of a load balancer (GKE: 35.191.0.0/16 and 130.211.0.0/22).
    """

    namespaces: tuple[Label, ...] = ()
    networks: Annotated[tuple[Annotated[str, _SOURCE], ...], not_everything(_EVERYBODY)] = ()
