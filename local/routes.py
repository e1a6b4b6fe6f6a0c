"""Whether this machine already uses a platform's networks in some other way: a VPN, a proxy, Docker."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from local.instance import SLOTS, Instance, slot_is_free
from local.tool_list import Progress
from modelcar.errors import refuse

#: Shorter prefixes are a way out, as the default route is; one of this length is a whole range of private
#: addresses (10.0.0.0/8), of which a platform takes a small part.
WIDE = 8


@dataclass(frozen=True)
class Route:
    """A network, and what it is reached through."""

    network: ipaddress.IPv4Network
    through: str


def routes(ip: str) -> list[Route]:
    """Return this machine's routes but those that lead out.

    Args:
        ip: the program of iproute2.
    """
    command = [ip, "-4", "-json", "route", "show"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = []
    for entry in json.loads(shown or "[]"):
        if entry["dst"] == "default":
            continue
        network = ipaddress.IPv4Network(entry["dst"], strict=False)
        if network.prefixlen >= WIDE:
            found.append(Route(network, str(entry.get("dev") or entry.get("type") or "somewhere else")))
    return found


def require_free_networks(instance: Instance, ip: str, progress: Progress) -> None:
    """Refuse to shadow a network that this machine reaches some other way.

    The Services' network is not looked at: no route of this machine leads there.

    Args:
        instance: the platform, which does not run.
        ip: the program of iproute2.
        progress: takes a line for a wide network that the platform takes a part of.

    Raises:
        InputError: a network is taken; with a slot whose networks are free, where there is one.
    """
    known = [route for route in routes(ip) if route.through != instance.link]
    for network in _networks(instance.slot):
        for route in _overlapping(network, known):
            if route.network.prefixlen == WIDE:
                progress(
                    f"NOTE: {network} is a part of {route.network}, which {route.through} leads to: "
                    "while the platform runs, addresses in that part are the platform's"
                )
                continue
            raise refuse(
                f"network {network}",
                f"this machine reaches {route.network} through {route.through}",
                allowed="a network that this machine does not use",
                fix=_fix(instance, known, route),
            )


def _networks(slot: int) -> tuple[ipaddress.IPv4Network, ...]:
    """Return the networks that a slot's platform is reached in: its link's and its pods'."""
    one = Instance("", slot, Path())
    link = ipaddress.IPv4Network(f"{one.address}/30", strict=False)
    return link, ipaddress.IPv4Network(one.pod_cidr)


def _overlapping(network: ipaddress.IPv4Network, known: Iterable[Route]) -> list[Route]:
    return [route for route in known if route.network.overlaps(network)]


def _fix(instance: Instance, known: list[Route], taken: Route) -> str:
    narrow = [route for route in known if route.network.prefixlen > WIDE]
    for slot in SLOTS:
        if slot_is_free(slot) and not any(_overlapping(network, narrow) for network in _networks(slot)):
            return f"take another slot: mkdir -p {instance.state} && echo {slot} > {instance.state}/slot"
    return (
        f"no slot is free of it: end what made {taken.through} (a VPN, a proxy, a Docker network) while the "
        "platform runs, or give it another network"
    )
