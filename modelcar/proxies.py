"""Which proxy leads to an address: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, as docker reads them.

Docker, buildx, containerd and kubectl take NO_PROXY as Go does (golang.org/x/net/http/httpproxy): names with
what is below them, addresses, networks (10.0.0.0/8), each name or address also with a port, and `*`. Python's
own libraries and httpx know no networks there. This machine itself (localhost, 127.0.0.0/8, ::1) is never
reached by a proxy.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit
from urllib.request import getproxies

_PORTS = {"http": 80, "https": 443}
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def proxy_for(url: str) -> str | None:
    """Return the address of the proxy that leads to a URL here; None where it is reached directly."""
    proxies = getproxies()
    parts = urlsplit(url)
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    host = (parts.hostname or "").lower()
    if not proxy or not host:
        return None
    if is_direct(host, parts.port or _PORTS.get(parts.scheme, 0), proxies.get("no", "")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def is_direct(host: str, port: int, no_proxy: str) -> bool:
    """Tell whether a host is reached without a proxy.

    Args:
        host: its name or address, in lower case, without brackets.
        port: of the connection.
        no_proxy: the value of NO_PROXY.
    """
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    return any(_names(entry.strip(), host, port, address) for entry in no_proxy.lower().split(","))


def _names(entry: str, host: str, port: int, address: _Address | None) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        try:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name, colon, its_port = entry.rpartition(":")
    if not colon or (":" in name and not name.endswith("]")):  # no port, or an IPv6 address without brackets
        name, its_port = entry, ""
    name = name.removeprefix("[").removesuffix("]").removeprefix("*")
    if not name or (its_port and its_port != str(port)):
        return False
    if (named := _address(name)) is not None:
        return named == address
    return host.endswith(name) if name.startswith(".") else host == name or host.endswith(f".{name}")


def _address(text: str) -> _Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
