"""Whether Pulumi's downloads can be reached: by DNS, or by the proxy that stands between."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from local import plugins
from local.downloads.web import PROBE_SECONDS
from tests.served import served

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
#: What the proxy answers, by case.
ALLOWS, REFUSES = 200, 403


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine knows no names but its own."""
    lookup = socket.getaddrinfo

    def own(host: str, *more: Any, **named: Any) -> Any:
        if host != "127.0.0.1":
            raise OSError("Name or service not known")
        return lookup(host, *more, **named)

    monkeypatch.setattr("socket.getaddrinfo", own)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def proxy(asked: list[str]) -> Iterator[Callable[[int], str]]:
    status = ALLOWS

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            return

        def do_CONNECT(self) -> None:
            asked.append(f"{self.path} {self.headers.get('Proxy-Authorization')}")
            self.send_response(status)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def answering(wanted: int) -> str:
        nonlocal status
        status = wanted
        return f"127.0.0.1:{server.server_address[1]}"

    with served(server):
        yield answering


def test_without_a_proxy_dns_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not plugins._is_reachable()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: [])
    assert plugins._is_reachable()


def test_a_proxy_that_knows_the_names_is_a_way(
    proxy: Callable[[int], str], asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy(ALLOWS)}")
    assert plugins._is_reachable()
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:p%40ss@{proxy(ALLOWS)}")
    assert plugins._is_reachable()
    assert asked == ["get.pulumi.com:443 None", "get.pulumi.com:443 Basic bWU6cEBzcw=="]


def test_a_proxy_that_refuses_is_none(proxy: Callable[[int], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy(REFUSES)}")
    monkeypatch.setattr(plugins, "_install", lambda *_: pytest.fail("Pulumi would try five times"))
    assert not plugins._is_reachable()
    assert not plugins.find_plugins(Path("/none/pulumi"), lambda _: None).downloads


def test_where_no_proxy_stands_between_dns_tells(
    proxy: Callable[[int], str], asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy(ALLOWS)}")
    monkeypatch.setenv("NO_PROXY", ".pulumi.com")
    assert not plugins._is_reachable()
    assert asked == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://proxy.example:3128", "http://127.0.0.1:port"])
def test_a_proxy_that_is_not_there_is_none(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", url)
    assert not plugins._is_reachable()


def test_a_proxy_of_another_kind_is_left_to_pulumi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1080")
    assert plugins._is_reachable()


def test_a_proxy_that_never_answers_takes_no_longer_than_a_name_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        assert not plugins._is_reachable()
        assert time.monotonic() - began < PROBE_SECONDS + 2
