"""A command in a container, through a WebSocket as the API server speaks it: what it gets, what it says."""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from components.cluster.access import Cluster, ClusterError
from components.config.cluster import DestinationSettings

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


SUCCESS = '{"metadata":{},"status":"Success"}'
FAILED = (
    '{"status":"Failure","message":"command terminated with exit code 1","reason":"NonZeroExitCode",'
    '"details":{"causes":[{"reason":"ExitCode","message":"1"}]}}'
)
NOT_RUNNING = '{"status":"Failure","message":"container is not running","reason":"InternalError","code":500}'


class ApiServer:
    """Takes one exec. asked: the query of its address. read: what came by stdin. says: its output.

    status: what it tells in the end of the command; None: it never ends it.
    """

    def __init__(self, says: list[str], status: str | None = SUCCESS) -> None:
        self.asked: dict[str, list[str]] = {}
        self.read = ""
        self.says, self.status = says, status
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
            told = [b"\x03" + self.status.encode()] if self.status else []
            for content in [*(b"\x01" + text.encode() for text in self.says), *told]:
                connection.sendall(bytes([0x82, 126]) + len(content).to_bytes(2, "big") + content)
            if self.status is None:
                stream.read()  # until the client has enough of it
            else:
                connection.sendall(b"\x88\x00")


@pytest.fixture
def server() -> Iterator[ApiServer]:
    running = ApiServer(["one", " two\n"])
    yield running
    running.close()


@pytest.fixture
def serving() -> Iterator[Callable[[list[str], str | None], Cluster]]:
    """Return a cluster whose exec says and ends as a test wants it."""
    running: list[ApiServer] = []

    def start(says: list[str], status: str | None) -> Cluster:
        running.append(ApiServer(says, status))
        return cluster_at(running[-1].url)

    yield start
    for one in running:
        one.close()


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


def test_a_command_that_fails_has_said_something_all_the_same(
    serving: Callable[[list[str], str | None], Cluster],
) -> None:
    assert serving(["no such file\n"], FAILED).execute("n", "p", "c", ["cat", "/x"]) == "no such file\n"


@pytest.mark.parametrize(
    ("says", "status", "words"),
    [
        ([], NOT_RUNNING, "exec in p: container is not running"),
        (["a part\n"], "", "exec in p: the connection ended before the command did; it said 'a part'"),
        (["a part\n"], None, "exec in p: it did not end within 1 s; it said 'a part'"),
        ([], None, "exec in p: it did not end within 1 s"),
    ],
    ids=["its container does not run", "cut off", "too slow", "too slow and silent"],
)
def test_what_was_not_run_to_its_end_is_no_answer(
    serving: Callable[[list[str], str | None], Cluster], says: list[str], status: str | None, words: str
) -> None:
    with pytest.raises(ClusterError) as caught:
        serving(says, status).execute("n", "p", "c", ["sh", "-c", "…"], timeout=1)
    assert str(caught.value) == words
