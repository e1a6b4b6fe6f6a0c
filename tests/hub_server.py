"""A model hub on this machine: the part of the Hub's protocol that its client uses, with faults on demand.

https://huggingface.co/docs/hub/api has the model's description; files are at /REPO/resolve/REVISION/PATH,
large ones behind a redirect, with ranges.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from tests.served import served

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CHUNK = 65536

#: A file's content, or where it is.
Content = bytes | Path


@dataclass
class Fault:
    """What goes wrong with a file, for a number of requests.

    cut: bytes after which the connection ends. reset: it ends by a TCP reset, which the client takes for
    another error than an end. status: answered in place of the file. ignore_range: all is sent. flip:
    position of a byte that is changed. extra: bytes too many at the end. code, message: X-Error-Code and
    X-Error-Message. retry_after: seconds.
    """

    times: int = 1
    cut: int | None = None
    reset: bool = False
    status: int | None = None
    ignore_range: bool = False
    flip: int | None = None
    extra: bytes = b""
    code: str = ""
    message: str = ""
    retry_after: int | None = None


@dataclass
class Request:
    """A request for a file's content. start: first byte sent. sent: bytes. encoding: what was accepted."""

    path: str
    start: int
    sent: int = 0
    encoding: str = ""


@dataclass
class Hub:
    """The running server; `models` maps a repository to its files, by path."""

    models: Mapping[str, Mapping[str, Content]]
    url: str = ""
    commit: str = COMMIT
    license: str | None = "apache-2.0"
    #: Answered in place of a model's description.
    description: bytes | None = None
    #: Bytes from which a file has a sha256 that the hub tells, and is behind a redirect.
    lfs_from: int = 100_000
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    #: Most downloads that ran at the same time.
    most_at_once: int = 0
    at_once: int = 0
    #: Held by a download while it is set to wait.
    gate: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, path: str, **what: Any) -> None:
        """Let something go wrong with a file; with "" it is the model's description."""
        self.faults.setdefault(path, []).append(Fault(**what))

    def take_fault(self, path: str, *, status: bool) -> Fault | None:
        """Return what goes wrong this time, if it is a status, or if it is something else."""
        with self.lock:
            fault = next((fault for fault in self.faults.get(path, []) if fault.times > 0), None)
            if fault is None or (fault.status is not None) != status:
                return None
            fault.times -= 1
            return fault

    def sent(self, path: str) -> int:
        """Return the bytes of a file that were sent in all."""
        return sum(request.sent for request in self.requests if request.path == path)


def size_of(content: Content) -> int:
    """Return the bytes of a content."""
    return content.stat().st_size if isinstance(content, Path) else len(content)


def sha256_of(content: Content) -> str:
    """Return the digest of a content."""
    hasher = hashlib.sha256()
    for piece in pieces(content, 0):
        hasher.update(piece)
    return hasher.hexdigest()


def pieces(content: Content, start: int) -> Iterator[bytes]:
    """Yield a content from a byte on."""
    if isinstance(content, bytes):
        for position in range(start, len(content), CHUNK):
            yield content[position : position + CHUNK]
        return
    with content.open("rb") as file:
        file.seek(start)
        while piece := file.read(CHUNK):
            yield piece


@contextmanager
def serve(
    models: Mapping[str, Mapping[str, Content]], address: str = "127.0.0.1", **settings: Any
) -> Iterator[Hub]:
    """Run a hub until the block ends."""
    hub = Hub(models, **settings)
    hub.gate.set()

    class Handler(_Handler):
        served = hub

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Clients go away; tests see what comes of it."""

    server = Server((address, 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://{address}:{server.server_address[1]}"
    with served(server):
        try:
            yield hub
        finally:
            hub.gate.set()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Hub

    def log_message(self, *_: Any) -> None:
        return

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        if " //" in self.requestline:  # as the hub does; Python's server takes one `/` for it
            self._send(404, b"what is that?")
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._describe(found[1], found[2] or "main")
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(found[1], found[2], found[3], body=body)
        elif found := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path):
            self._send_file(found[1], found[2], body=body)
        else:
            self._send(404, b"what is that?")

    def _send(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _failed(self, path: str) -> bool:
        """Answer with a status that a test wants."""
        fault = self.served.take_fault(path, status=True)
        if fault is None or fault.status is None:
            return False
        headers = {"X-Error-Code": fault.code} if fault.code else {}
        if fault.message:
            headers["X-Error-Message"] = fault.message
        if fault.retry_after is not None:
            headers["Retry-After"] = str(fault.retry_after)
        self._send(fault.status, b"<html>an error page</html>", headers)
        return True

    def _describe(self, repository: str, revision: str) -> None:
        hub = self.served
        if self._failed(""):
            return
        if hub.description is not None:
            self._send(200, hub.description)
        elif repository not in hub.models:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif revision not in {"main", hub.commit}:
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        else:
            siblings = []
            for path, content in hub.models[repository].items():
                entry: dict[str, Any] = {"rfilename": path, "size": size_of(content), "blobId": "0" * 40}
                if size_of(content) >= hub.lfs_from:
                    entry["lfs"] = {
                        "sha256": sha256_of(content),
                        "size": size_of(content),
                        "pointerSize": 100,
                    }
                siblings.append(entry)
            card = {"license": hub.license} if hub.license else {}
            document = {"id": repository, "sha": hub.commit, "siblings": siblings, "cardData": card}
            self._send(200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _resolve(self, repository: str, revision: str, path: str, *, body: bool) -> None:
        hub = self.served
        content = hub.models.get(repository, {}).get(path)
        if self._failed(path):
            return
        if content is None or revision != hub.commit:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        elif size_of(content) >= hub.lfs_from:
            headers = {
                "Location": f"{hub.url}/cdn/{quote(f'{repository}/{path}')}",
                "X-Repo-Commit": hub.commit,
                "X-Linked-Size": str(size_of(content)),
                "X-Linked-Etag": sha256_of(content),
            }
            self._send(302, b"", headers)
        else:
            self._send_file(repository, path, body=body)

    def _send_file(self, repository: str, path: str, *, body: bool) -> None:
        hub = self.served
        content = hub.models[repository][path]
        size = size_of(content)
        fault = hub.take_fault(path, status=False) or Fault()
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and not fault.ignore_range else 0
        if start >= size:
            self._send(416, b"", {"Content-Range": f"bytes */{size}"})
            return
        partial = asked is not None and not fault.ignore_range
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - start + len(fault.extra)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("X-Repo-Commit", hub.commit)
        self.send_header("ETag", f'"{quote(path)}"')
        self.end_headers()
        if not body:
            return
        request = Request(path, start, encoding=self.headers.get("Accept-Encoding", ""))
        with hub.lock:
            hub.requests.append(request)
            hub.at_once += 1
            hub.most_at_once = max(hub.most_at_once, hub.at_once)
        with suppress(OSError):
            self._send_content(content, request, fault)
        with hub.lock:
            hub.at_once -= 1

    def _send_content(self, content: Content, request: Request, fault: Fault) -> None:
        hub = self.served
        position = request.start
        for piece in pieces(content, request.start):
            hub.gate.wait(20)
            data = bytearray(piece)
            if fault.flip is not None and position <= fault.flip < position + len(data):
                data[fault.flip - position] ^= 1
            if fault.cut is not None and request.sent + len(data) >= fault.cut:
                self.wfile.write(data[: fault.cut - request.sent])
                request.sent = fault.cut
                self.wfile.flush()
                self._end(reset=fault.reset)
                return
            self.wfile.write(data)
            request.sent += len(data)
            position += len(data)
        self.wfile.write(fault.extra)

    def _end(self, *, reset: bool) -> None:
        """End the connection before the answer is complete."""
        self.close_connection = True
        if reset:
            threading.Event().wait(0.1)  # a reset drops what the client has not read (tests stop time.sleep)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()  # it holds the connection open
            self.connection.close()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)
