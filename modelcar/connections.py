"""HTTP connections to hosts that the user names: by the environment's proxy, with the system's trust."""

from __future__ import annotations

import os
import ssl
import threading
from typing import Any

import httpx

from modelcar.errors import refuse
from modelcar.proxies import proxy_for


def trusted() -> ssl.SSLContext:
    """Return whom to trust: the system's authorities, as docker and cosign do, and Mozilla's.

    httpx by itself takes Mozilla's alone (certifi), or those of SSL_CERT_FILE or SSL_CERT_DIR.

    Raises:
        InputError: the file that SSL_CERT_FILE names holds none.
    """
    try:
        context = httpx.create_ssl_context()
        context.load_default_certs()
    except OSError as error:  # of TLS, too; it names no file
        raise refuse(
            "SSL_CERT_FILE",
            f"{os.environ.get('SSL_CERT_FILE')}: {error.strerror or error}",
            allowed="a file of authorities' certificates, in PEM",
            fix="correct the variable, or unset it",
        ) from None
    return context


class Ways(httpx.BaseTransport):
    """Reaches each host by the proxy that the environment has for it (`modelcar.proxies`), or directly."""

    def __init__(self, verify: ssl.SSLContext) -> None:
        self._verify = verify
        self._made: dict[str | None, httpx.HTTPTransport] = {}
        self._lock = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, as httpx does; also one that a redirect leads to another host."""
        try:
            return self._by(proxy_for(str(request.url)), request)
        except ValueError as error:  # a host or a port that no name server could be asked for
            told = f"{request.url.host or 'no host'} is no address: {error}"
            raise httpx.ConnectError(told, request=request) from None

    def _by(self, proxy: str | None, request: httpx.Request) -> httpx.Response:
        with self._lock:
            if proxy not in self._made:
                try:
                    self._made[proxy] = httpx.HTTPTransport(verify=self._verify, proxy=proxy)
                except (ImportError, ValueError, httpx.InvalidURL) as error:  # SOCKS, or no address
                    told = f"the proxy that the environment has for {request.url.host}: {error}"
                    raise httpx.ProxyError(told, request=request) from None
        return self._made[proxy].handle_request(request)

    def close(self) -> None:
        """Close all connections."""
        for transport in self._made.values():
            transport.close()


def client(**options: Any) -> httpx.Client:
    """Return a client for any host."""
    return httpx.Client(transport=Ways(trusted()), **options)
