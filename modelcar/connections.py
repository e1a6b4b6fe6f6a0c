"""HTTP connections to hosts that the user names, with the system's trust."""

from __future__ import annotations

import ssl
from typing import Any

import httpx


def trusted() -> ssl.SSLContext:
    """Return whom to trust: the system's authorities, as docker and cosign do, and Mozilla's.

    httpx by itself takes Mozilla's alone (certifi), or those of SSL_CERT_FILE or SSL_CERT_DIR.
    """
    context = httpx.create_ssl_context()
    context.load_default_certs()
    return context


def client(**options: Any) -> httpx.Client:
    """Return a client for any host."""
    return httpx.Client(verify=trusted(), **options)
