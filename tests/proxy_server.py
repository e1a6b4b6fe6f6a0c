"""A proxy on this machine that leads nowhere, and keeps what it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.served import served


@dataclass
class Proxy:
    """The running proxy. asked: method and target of each request."""

    url: str = ""
    asked: list[str] = field(default_factory=list)

    def variables(self, no_proxy: str = "") -> dict[str, str]:
        """Return the variables of who is behind it."""
        named = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), self.url)
        return {**named, **(dict.fromkeys(("no_proxy", "NO_PROXY"), no_proxy) if no_proxy else {})}

    def stand_before(self, monkeypatch: pytest.MonkeyPatch, no_proxy: str = "") -> None:
        """Let this process be behind it."""
        for name, value in self.variables(no_proxy).items():
            monkeypatch.setenv(name, value)


@contextmanager
def serve() -> Iterator[Proxy]:
    """Run a proxy until the block ends."""
    proxy = Proxy()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            return

        def parse_request(self) -> bool:
            if super().parse_request():
                proxy.asked.append(f"{self.command} {self.path}")
                self.send_error(502)
            return False

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    with served(server):
        yield proxy


def elsewhere(address: str) -> str:
    """Return an address of this machine as if it were another one's: Linux takes 0.0.0.0 for itself.

    httpx by itself takes a network for the one address that it is written with: tests name it as 0.0.0.9/8.
    """
    return address.replace("127.0.0.1", "0.0.0.0")
