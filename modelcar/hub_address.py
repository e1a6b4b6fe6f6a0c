"""Addresses of a model hub, or of a mirror of one: those that are asked for, with the user's token."""

from __future__ import annotations

import re
import socket
from contextlib import closing
from urllib.parse import urlsplit

from modelcar.errors import InputError, refuse

#: Hosts that plain HTTP does not leave the machine for.
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})

#: A name, or an address of IPv6.
_HOST = re.compile(r"[\w-]{1,63}(\.[\w-]{1,63})*\.?|[0-9a-f.]*:[0-9a-f:.]*")
#: What no path holds.
_ODD = re.compile(r"[\s\x00-\x1f\x7f]")


def fault_of_address(text: object, *, asked_here: bool = False) -> tuple[str, str, str] | None:
    """Return why a text is no such address, what is allowed, and the fix; None where it is one.

    asked_here: this machine asks it, and nobody else, so that plain HTTP may name any address of its own.
    """
    try:
        url = urlsplit(text) if isinstance(text, str) else None
        host, port = (url.hostname or "", url.port) if url else ("", None)
    except ValueError:  # brackets that hold no address, or no port
        url, host, port = None, "", None
    near = host in _LOCAL or (asked_here and _is_here(host))
    if url and host and (url.scheme == "https" or (url.scheme == "http" and near)):
        if "@" in url.netloc:
            return "holds credentials", "an address without them", "set HF_TOKEN in the environment"
        if _HOST.fullmatch(host) and port != 0 and not (url.query or url.fragment or _ODD.search(url.path)):
            return None
    return "not the address of a hub", "https://HOST[/PATH]", "leave it out for the hub itself"


def refused(endpoint: str | None, fault: tuple[str, str, str]) -> InputError:
    """Return the error for an address that is not shown, as it may hold a password.

    Args:
        endpoint: that was given; HF_ENDPOINT names the hub where it is None.
        fault: of the address, by `fault_of_address`.
    """
    why, allowed, fix = fault
    key = "endpoint" if endpoint else "HF_ENDPOINT"
    return refuse(key, f"not shown: {why}", allowed=allowed, fix=f"correct {key}, or {fix}")


def _is_here(host: str) -> bool:
    """Tell whether an address, written as numbers, is one of this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.inet_pton(family, host)
        with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
            probe.bind((host, 0))  # which the kernel allows for its own addresses only
    except OSError:
        return False
    return host.strip("0.:") != ""  # not the one that stands for all


def plain(text: str) -> str:
    """Return an address as paths are put behind it."""
    return text.rstrip("/")
