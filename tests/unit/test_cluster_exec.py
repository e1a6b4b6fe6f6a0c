"""A command in a container, through a WebSocket as the API server speaks it: what it gets, what it says."""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from components.cluster.access import Cluster
from components.config.cluster import DestinationSettings

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class ApiServer:
    """Takes one exec. asked: the query of its address. read: what came by stdin. says: its output."""

    def __init__(self, says: list[str]) -> None:
        self.asked: dict[str, list[str]] = {}
        self.read = ""
        self.says = says
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._thread.join(10)
        self._socket.close()

    def _run(self) -> None:
        connection, _ = self._socket.accept()
        with connection, connection.makefile("rb") as stream:
            self.asked = parse_qs(urlsplit(stream.readline().split()[1].decode()).query)
            lines = iter(lambda: stream.readline().rstrip(b"\r\n"), b"")
            parts = (line.partition(b":") for line in lines)
            headers = {name.lower(): value.strip() for name, _, value in parts}
            key = headers[b"sec-websocket-key"] + _MAGIC
            accept = base64.b64encode(hashlib.sha1(key, usedforsecurity=False).digest())
            connection.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Protocol: v4.channel.k8s.io\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
            )
            while self.asked["stdin"] == ["true"] and not self.read.endswith("\n"):
                _, length = stream.read(2)
                size = length & 0x7F
                if size > 125:
                    size = int.from_bytes(stream.read(2 if size == 126 else 8), "big")
                mask = stream.read(4)
                content = bytes(byte ^ mask[place % 4] for place, byte in enumerate(stream.read(size)))
                assert content[0] == 0, "stdin's channel"
                self.read += content[1:].decode()
            for text in self.says:
                content = b"\x01" + text.encode()
                connection.sendall(bytes([0x82, 126]) + len(content).to_bytes(2, "big") + content)
            connection.sendall(b"\x88\x00")


@pytest.fixture
def server() -> Iterator[ApiServer]:
    running = ApiServer(["one", " two\n"])
    yield running
    running.close()


def cluster_at(url: str) -> Cluster:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    return Cluster.of(DestinationSettings(kubeconfig=yaml.safe_dump(document)))


def test_all_that_it_says_comes_back(server: ApiServer) -> None:
    assert cluster_at(server.url).execute("n", "p", "c", ["cat", "/x"]) == "one two\n"
    assert server.asked["command"] == ["cat", "/x"]
    assert server.read == ""


@pytest.mark.parametrize("size", [10, 5000, 200_000])
def test_what_it_reads_is_no_part_of_the_address(server: ApiServer, size: int) -> None:
    text = "p" * size + "\n"
    assert cluster_at(server.url).execute("n", "p", "c", ["cat"], text=text) == "one two\n"
    assert server.read == text
    assert "ppp" not in str(server.asked)
