"""No unit test asks the makers of the tools whether they can be reached, unless it says so itself."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests import proxy_server, registry_server
from tests.proxy_server import Proxy


@pytest.fixture(autouse=True)
def from_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELCAR_TOOLS", "source")


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take this machine's own proxies away."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture
def proxy(no_proxies: None) -> Iterator[Proxy]:
    with proxy_server.serve() as running:
        yield running


@pytest.fixture
def plain_registry() -> Iterator[registry_server.Registry]:
    with registry_server.serve() as running:
        yield running
