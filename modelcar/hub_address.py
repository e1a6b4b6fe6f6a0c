"""Addresses of a model hub, or of a mirror of one: those that are asked for, with the user's token."""

from __future__ import annotations

from urllib.parse import urlsplit

#: Hosts that plain HTTP does not leave the machine for.
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


def fault_of_address(text: object) -> tuple[str, str, str] | None:
    """Return why a text is no such address, what is allowed, and the fix; None where it is one."""
    try:
        url = urlsplit(text) if isinstance(text, str) else None
    except ValueError:  # brackets that hold no address
        url = None
    if url and url.hostname and (url.scheme == "https" or (url.scheme == "http" and url.hostname in _LOCAL)):
        if url.username or url.password:
            return "holds credentials", "an address without them", "set HF_TOKEN in the environment"
        return None
    return "not the address of a hub", "https://HOST[/PATH]", "leave it out for the hub itself"


def plain(text: str) -> str:
    """Return an address as paths are put behind it."""
    return text.rstrip("/")
