"""Settings that do nothing, or more than they seem to: nothing is refused, and a preview tells of them."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from components.config.autoscaling import OF_PROMETHEUS
from components.config.section import Section
from components.config.settings import Settings

#: The metadata server of Google, Amazon and Azure, and the ports that it listens on (GKE's own too).
_METADATA, _TOKENS = ip_address("169.254.169.254"), frozenset({80, 988})
#: What of `modelcar:kserve` is about an installation by this program.
_OF_INSTALLATION = (
    "install_cert_manager",
    "chart_repository",
    "cert_manager_version",
    "cert_manager_repository",
    "image_registry",
    "modelcar_uid",
    "modelcar_cpu",
    "modelcar_memory",
)


def doubts(settings: Settings) -> Iterator[str]:
    """Yield what a stack sets and nothing reads, and which rule lets pods ask for the node's token."""
    for number, rule in enumerate(settings.egress.allow if settings.egress.restrict else ()):
        if _METADATA in ip_network(rule.cidr) and (not rule.ports or _TOKENS.intersection(rule.ports)):
            yield (
                f"modelcar:egress.allow[{number}] ({rule.cidr}) lets the pods reach {_METADATA}: clouds "
                "give the node's or the pod's token there, and with it its rights to whoever breaks in. "
                "Name a narrower network, or ports without 80 and 988, unless the server needs that token"
            )
    for key, why in _found(settings):
        yield f"modelcar:{key} has no effect {why}: remove it, or change the other"


def _found(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the keys, and beside what they have no effect."""
    if not settings.egress.restrict:
        yield from _said("egress", settings.egress, ("dns", "allow"), "while egress.restrict is false")
    if settings.gpu and not settings.google:
        yield "gpu", "without modelcar:google, whose pools it chooses from"
    if settings.mirrors_insecure and not settings.mirrors:
        yield "mirrorsInsecure", "without modelcar:mirrors"
    if not settings.kserve.install:
        yield from _said("kserve", settings.kserve, _OF_INSTALLATION, "while kserve.install is false")
    own = settings.autoscaling
    if own and own.fallback_replicas and not any(one.type in OF_PROMETHEUS for one in own.triggers):
        yield "autoscaling.fallbackReplicas", "where all triggers are of type cron, which never fail"
    google = settings.google
    if google and not google.cluster.create:
        why = "while google.cluster.create is false"
        yield from _said("google.cluster", google.cluster, ("release_channel",), why)
    if google and google.repository.existing:
        why = "while google.repository.existing is true"
        yield from _said("google.repository", google.repository, ("untagged_days",), why)


def _said(key: str, section: Section, names: tuple[str, ...], why: str) -> Iterator[tuple[str, str]]:
    for name in names:
        if name in section.model_fields_set:
            yield f"{key}.{type(section).model_fields[name].alias}", why
