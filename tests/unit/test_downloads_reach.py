"""Whether the makers can be reached: two seconds at most, once a process, in whatever way a network fails."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from local import plugins, tool_build
from local.downloads import obtain, web
from local.tool_list import TOOLS
from tests import makers_server
from tests.unit.test_modelcar_docker_certificates import Authority

KUBELET, HELM = (next(tool for tool in TOOLS if tool.name == name) for name in ("kubelet", "helm"))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@contextmanager
def refused() -> Iterator[str]:
    """A port that nothing listens on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"https://127.0.0.1:{held.getsockname()[1]}"


@contextmanager
def black_hole() -> Iterator[str]:
    """A port whose queue of connections is full, so that no further one is answered, nor refused."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        waiting: list[socket.socket] = []
        try:
            for _ in range(64):
                waiting.append(socket.socket())
                waiting[-1].settimeout(0.2)
                try:
                    waiting[-1].connect(address)
                except TimeoutError:
                    break
            else:
                pytest.fail("the queue takes any number of connections here")
            yield f"https://127.0.0.1:{address[1]}"
        finally:
            for one in waiting:
                one.close()


@contextmanager
def silent() -> Iterator[str]:
    """A port that takes connections and says nothing: TLS waits."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(5)
        yield f"https://127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def no_name() -> Iterator[str]:
    """A name server that never answers."""
    over = threading.Event()

    def wait(*_: object, **__: object) -> None:
        over.wait(30)
        raise OSError("no such host")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", wait)
        try:
            yield ""
        finally:
            over.set()


def test_pulumis_plugins_wait_no_longer_for_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path))
    with no_name():
        began = time.monotonic()
        found = plugins.find_plugins(tmp_path / "pulumi", lambda _: None)
        assert time.monotonic() - began < 2
    assert not found.downloads


@pytest.mark.parametrize("network", [refused, black_hole, silent, no_name], ids=lambda one: str(one.__name__))
def test_without_a_way_two_seconds_are_lost_at_most_and_the_tools_built(
    network: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELCAR_TOOLS", "auto")
    monkeypatch.setenv("MODELCAR_CACHE", str(tmp_path))
    lines: list[str] = []
    with network() as base:
        monkeypatch.setattr(web, "WEB", web.Web(base))
        began = time.monotonic()
        assert obtain.downloadable(["kubelet", "helm"]) == []
        assert not obtain.attempt(KUBELET, tool_build.stamp_of(KUBELET), lines.append)
        assert not obtain.attempt(HELM, tool_build.stamp_of(HELM), lines.append)
        assert time.monotonic() - began < 2, "all tools together"
    assert len(lines) == 1
    assert lines[0].startswith("makers' releases cannot be reached (")
    assert "github.com" in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_answers_anything_is_a_way() -> None:
    with makers_server.serve() as makers:
        reached = web.Web(makers.base)
        assert reached.unreachable() == ""
        assert reached.unreachable() == ""
        assert makers.asked == ["HEAD github.com/"], "asked once"


def test_a_host_that_is_gone_is_not_waited_for_again() -> None:
    with refused() as base:
        lost = web.Web(base)
        with pytest.raises(web.DownloadError, match=r"dl\.k8s\.io cannot be reached \(.*refused"):
            lost.text("https://dl.k8s.io/a")
    with makers_server.serve() as makers:
        lost.base = makers.base
        makers.publish("https://dl.k8s.io/a", b"text")
        makers.publish("https://get.helm.sh/a", b"text")
        with pytest.raises(web.DownloadError, match=r"dl\.k8s\.io cannot be reached"):
            lost.text("https://dl.k8s.io/a")
        assert lost.text("https://get.helm.sh/a") == "text"


def test_a_proxy_is_asked_and_its_refusal_is_no_way(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []
    with socket.socket() as proxy:
        proxy.bind(("127.0.0.1", 0))
        proxy.listen(1)

        def refuse() -> None:
            connection, _ = proxy.accept()
            with connection:
                asked.append(connection.recv(4096).split(b"\r\n")[0])
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=refuse, daemon=True)
        thread.start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        told = web.Web().unreachable()
        thread.join(5)
    assert [line.rpartition(b" ")[0] for line in asked] == [b"CONNECT github.com:443"]
    assert "403" in told


def test_certificates_are_checked_as_python_does_and_https_is_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "authority")
    certificate, key = authority.make("server")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with makers_server.serve(tls) as makers, makers_server.serve() as plain:
        makers.publish("https://dl.k8s.io/a", b"text")
        assert "CERTIFICATE_VERIFY_FAILED" in web.Web(makers.base).unreachable()
        with pytest.raises(web.DownloadError, match="CERTIFICATE_VERIFY_FAILED"):
            web.Web(makers.base).text("https://dl.k8s.io/a")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
        trusted = web.Web(makers.base)
        assert trusted.unreachable() == ""
        assert trusted.text("https://dl.k8s.io/a") == "text"

        def to_plain(handler: Any, _: bytes) -> None:
            handler.send_response(302)
            handler.send_header("Location", f"{plain.base}/a")
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        makers.faults["dl.k8s.io/a"] = to_plain
        with pytest.raises(web.DownloadError, match=r"redirects to http://127\.0\.0\.1.*not https"):
            trusted.text("https://dl.k8s.io/a")
        assert plain.asked == []
