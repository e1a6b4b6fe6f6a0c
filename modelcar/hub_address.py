"""Addresses of a model hub, or of a mirror of one: those that are asked for, with the user's token."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

#: Hosts that plain HTTP does not leave the machine for.
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})

#: A name, or an address of IPv6.
_HOST = re.compile(r"[\w-]{1,63}(\.[\w-]{1,63})*\.?|[0-9a-f.]*:[0-9a-f:.]*")
#: What no path holds.
_ODD = re.compile(r"[\s\x00-\x1f\x7f]")


def fault_of_address(text: object) -> tuple[str, str, str] | None:
    """Return why a text is no such address, what is allowed, and the fix; None where it is one."""
    try:
        url = urlsplit(text) if isinstance(text, str) else None
        host, port = (url.hostname or "", url.port) if url else ("", None)
    except ValueError:  # brackets that hold no address, or no port
        url, host, port = None, "", None
    if url and host and (url.scheme == "https" or (url.scheme == "http" and host in _LOCAL)):
        if "@" in url.netloc:
            return "holds credentials", "an address without them", "set HF_TOKEN in the environment"
        if _HOST.fullmatch(host) and port != 0 and not (url.query or url.fragment or _ODD.search(url.path)):
            return None
    return "not the address of a hub", "https://HOST[/PATH]", "leave it out for the hub itself"


def plain(text: str) -> str:
    """Return an address as paths are put behind it."""
    return text.rstrip("/")
