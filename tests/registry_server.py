"""A registry on this machine that takes blobs, asks for credentials as real ones do, and fails on demand."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.served import served

USER, PASSWORD, TOKEN = "robot", "s3cret-of-the-registry", "token-of-the-registry"

#: Status, headers and content.
Answer = tuple[int, dict[str, str], bytes]


@dataclass
class ReadFault:
    """What goes wrong when a blob is read, once.

    cut: bytes after which the connection ends. stall: it stays open after them, so many seconds. flip:
    position of a byte that is changed. ignore_range: all of it is sent. instead: other content.
    """

    cut: int | None = None
    stall: float = 0
    flip: int | None = None
    ignore_range: bool = False
    instead: bytes | None = None


@dataclass
class Registry:
    """The running server. wants: None, Basic or Bearer credentials."""

    wants: str | None = None
    #: Whether it wants them for writing alone.
    reads_are_public: bool = False
    #: Challenges of its 401 before its own.
    other_challenges: list[str] = field(default_factory=list)
    host: str = ""
    scheme: str = "http"
    blobs: dict[str, bytes] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    #: Sizes of blobs that it has without their bytes.
    there: dict[str, int] = field(default_factory=dict)
    #: Every request, also those to a token's server, is first answered by what this returns, if anything.
    instead: Callable[[str, str], Answer | None] = lambda _method, _path: None
    #: Which one the token's server gives tokens for, by POST.
    identity_token: str | None = None
    scopes: list[str] = field(default_factory=list)
    #: Statuses that the next uploads are answered with.
    failures: list[int] = field(default_factory=list)
    #: By tag and by digest: content and media type.
    manifests: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    #: Digests of blobs that were read.
    read: list[str] = field(default_factory=list)
    #: Blobs of repositories that have their own; all others share `blobs`.
    own: dict[str, dict[str, bytes]] = field(default_factory=dict)
    #: Whether it mounts blobs of its other repositories, and which it did: digest and repository.
    mounts: bool = False
    mounted: list[tuple[str, str]] = field(default_factory=list)
    #: What goes wrong with the next blobs that are read.
    read_faults: list[ReadFault] = field(default_factory=list)
    #: The byte that each reading began at.
    read_from: list[int] = field(default_factory=list)
    #: Method and path of each request.
    requests: list[str] = field(default_factory=list)
    #: Credentials of those that had some.
    credentials: list[str] = field(default_factory=list)
    #: Whether it sends parts of blobs.
    gives_parts: bool = True
    #: Whether it has the API of referrers.
    has_referrers: bool = True
    #: Whether a tag may be given to another manifest than its first.
    immutable_tags: bool = False
    #: Whether it deletes as Artifact Registry does: a tag alone, and no manifest that a tag or a list names.
    tags_first: bool = False
    #: Statuses and codes that deletions are answered with, by digest or tag.
    undeletable: dict[str, tuple[int, str]] = field(default_factory=dict)
    #: Digests and tags that were deleted, in order.
    deleted: list[str] = field(default_factory=list)
    #: Entries on a page of a list; and what the address of the next page begins with.
    page_size: int = 1000
    next_at: str = ""
    #: What the last PATCH sent.
    streamed: bytes = b""
    lock: threading.Lock = field(default_factory=threading.Lock)
    #: Set when the server ends: nothing stalls any more.
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def basic(self) -> str:
        """What Basic credentials look like."""
        return "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    def blobs_of(self, path: str) -> dict[str, bytes]:
        """Return the blobs of the repository of a request's path."""
        return self.own.get(path.partition("/blobs/")[0].removeprefix("/v2/"), self.blobs)


@contextmanager
def serve(wants: str | None = None, tls: ssl.SSLContext | None = None) -> Iterator[Registry]:
    """Run a registry until the block ends; by HTTPS where it has certificates."""
    registry = Registry(wants, scheme="https" if tls else "http")

    class Handler(_Handler):
        served = registry

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # five, as socketserver has it, is fewer than some clients ask at once

        def handle_error(self, *_: Any) -> None:
            """Clients go away; tests see what comes of it."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    registry.host = f"127.0.0.1:{server.server_address[1]}"
    with served(server):
        try:
            yield registry
        finally:
            registry.stop.set()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Registry

    def log_message(self, *_: Any) -> None:
        return

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        self.served.requests.append(f"{self.command} {self.path}")
        if given := self.headers.get("Authorization"):
            self.served.credentials.append(given)
        if not (answer := self.served.instead(self.command, self.path)):
            return True
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._send(*answer)
        return False

    def _send(self, status: int, headers: dict[str, str] | None = None, content: bytes = b"") -> None:
        self.send_response(status)
        sized = {} if self.command == "HEAD" and headers else {"Content-Length": str(len(content))}
        for name, value in {**sized, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _allowed(self) -> bool:
        registry, given = self.served, self.headers.get("Authorization", "")
        if registry.reads_are_public and self.command in {"GET", "HEAD"}:
            return True
        if registry.wants == "Basic" and given != registry.basic:
            self._challenge('Basic realm="registry"')
            return False
        if registry.wants == "Bearer" and given != f"Bearer {TOKEN}":
            self._challenge(f'Bearer realm="{registry.scheme}://{registry.host}/token",service="here"')
            return False
        return True

    def _challenge(self, own: str) -> None:
        self.send_response(401)
        for challenge in [*self.served.other_challenges, own]:
            self.send_header("WWW-Authenticate", challenge)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path != "/token":
            if self._allowed():
                self._get(url.path)
            return
        if self.headers.get("Authorization") != self.served.basic:
            self._send(401)
            return
        self.served.scopes += parse_qs(url.query)["scope"]
        self._send(200, content=json.dumps({"token": TOKEN}).encode())

    def _get(self, path: str) -> None:
        registry, (kind, name) = self.served, path.split("/")[-2:]
        if path == "/v2/":
            self._send(200)
        elif kind == "manifests" and name in registry.manifests:
            content, media_type = registry.manifests[name]
            self._send(200, {"Content-Type": media_type}, content)
        elif kind == "blobs" and name in registry.blobs_of(path):
            registry.read.append(name)
            self._send_blob(registry.blobs_of(path)[name])
        elif path.endswith("/tags/list") and registry.manifests:
            self._send_page("tags", [tag for tag in registry.manifests if not tag.startswith("sha256:")])
        elif kind == "referrers" and registry.has_referrers:
            found = []
            for digest, (content, _) in registry.manifests.items():
                document = json.loads(content)
                if document.get("subject", {}).get("digest") == name:
                    found.append({"digest": digest, "artifactType": document["artifactType"]})
            self._send_page("manifests", found)
        else:
            self._send(404)

    def _send_page(self, key: str, entries: list[Any]) -> None:
        registry, url = self.served, urlsplit(self.path)
        start = int(parse_qs(url.query).get("last", ["0"])[0])
        end = start + registry.page_size
        following = f'<{registry.next_at}{url.path}?last={end}>; rel="next"'
        link = {"Link": following} if end < len(entries) else {}
        self._send(200, link, json.dumps({key: entries[start:end]}).encode())

    def _send_blob(self, content: bytes) -> None:
        registry = self.served
        with registry.lock:
            fault = registry.read_faults.pop(0) if registry.read_faults else ReadFault()
        content = content if fault.instead is None else fault.instead
        if fault.flip is not None:
            content = content[: fault.flip] + bytes([content[fault.flip] ^ 1]) + content[fault.flip + 1 :]
        asked = self.headers.get("Range") if registry.gives_parts and not fault.ignore_range else None
        first, _, last = (asked or "").removeprefix("bytes=").partition("-")
        start, end = int(first or 0), int(last) + 1 if last else len(content)
        registry.read_from.append(start)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content[start:end])))
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(content[start : end if fault.cut is None else min(end, start + fault.cut)])
            self.wfile.flush()
            if fault.cut is not None:
                registry.stop.wait(fault.stall)
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True

    def do_HEAD(self) -> None:
        if self._allowed():
            digest, own = self.path.rpartition("/")[2], self.served.blobs_of(self.path)
            if manifest := self.served.manifests.get(digest):
                sizes = {"Content-Length": str(len(manifest[0])), "Content-Type": manifest[1]}
                self._send(200, {**sizes, "Docker-Content-Digest": digest})
                return
            there = self.served.there | {name: len(blob) for name, blob in own.items()}
            size = {"Content-Length": str(there.get(digest)), "Docker-Content-Digest": digest}
            self._send(200, size) if digest in there else self._send(404)

    def do_DELETE(self) -> None:
        registry, name = self.served, self.path.rpartition("/")[2]
        manifests = registry.manifests
        if not self._allowed():
            return
        same = [other for other in manifests if manifests[other] == manifests.get(name)]
        refused = registry.undeletable.get(name) or self._kept_for(name, same)
        if refused:
            told = {"errors": [{"code": refused[1], "message": f"about {name}"}]}
            self._send(refused[0], content=json.dumps(told).encode())
        elif name not in manifests:
            self._send(404)
        else:
            for one in [name] if registry.tags_first else same:
                del manifests[one]
            registry.deleted.append(name)
            self._send(202)

    def _kept_for(self, name: str, same: list[str]) -> tuple[int, str] | None:
        """Return how Artifact Registry refuses to delete a manifest or a tag."""
        if not self.served.tags_first:
            return None
        if not name.startswith("sha256:"):
            return (400, "FAILED_PRECONDITION") if self.served.immutable_tags else None
        if len(same) > 1:
            return 400, "GOOGLE_MANIFEST_DANGLING_TAG"
        lists = [json.loads(content).get("manifests") or [] for content, _ in self.served.manifests.values()]
        listed = any(isinstance(one, dict) and one.get("digest") == name for found in lists for one in found)
        return (400, "GOOGLE_MANIFEST_DANGLING_PARENT_IMAGE") if listed else None

    def do_POST(self) -> None:
        if self.path == "/token":
            length = int(self.headers["Content-Length"])
            form = {name: value for name, [value] in parse_qs(self.rfile.read(length).decode()).items()}
            wanted = {"grant_type": "refresh_token", "refresh_token": self.served.identity_token}
            if (
                not form.get("client_id")
                or form.get("service") != "here"
                or not wanted.items() <= form.items()
            ):
                self._send(401)
                return
            self.served.scopes.append(form["scope"])
            self._send(200, content=json.dumps({"access_token": TOKEN}).encode())
            return
        if self._allowed():
            path, asked = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
            if "mount" in asked and self.served.mounts:
                [digest], [source] = asked["mount"], asked["from"]
                self.served.blobs_of(path)[digest] = self.served.own[source][digest]
                self.served.mounted.append((digest, source))
                self._send(201, {"Location": path.replace("uploads/", digest)})
                return
            self._send(202, {"Location": f"{path}one?_state=x"})

    def do_PATCH(self) -> None:
        """Take a blob in chunks, as go-containerregistry sends it; the PUT after it has the digest alone."""
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "Content-Length" not in self.headers:
            while length := int(self.rfile.readline(), 16):
                content += self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
        if self._allowed():
            self.served.streamed = content
            self._send(202, {"Location": self.path})

    def do_PUT(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        content = self.rfile.read(length)
        if len(content) < length:  # whoever sends it has broken off
            self.close_connection = True
            return
        content = content or self.served.streamed
        if not self._allowed():
            return
        registry = self.served
        if "/manifests/" in self.path:
            media_type = self.headers["Content-Type"]
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            registry.manifests[digest] = (content, media_type)
            if not self.path.endswith(digest):
                tag = self.path.rpartition("/")[2]
                if registry.immutable_tags and registry.manifests.get(tag, (content,))[0] != content:
                    told = {"code": "MANIFEST_INVALID", "message": f"tag {tag} is immutable"}
                    self._send(400, content=json.dumps({"errors": [told]}).encode())
                    return
                registry.manifests[tag] = (content, media_type)
            subject = json.loads(content).get("subject", {}).get("digest")
            has_api = subject and registry.has_referrers
            self._send(201, {"OCI-Subject": subject} if has_api else {})
            return
        with registry.lock:
            failure = registry.failures.pop(0) if registry.failures else None
        [digest] = parse_qs(urlsplit(self.path).query)["digest"]
        if failure:
            self._send(failure)
        elif f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
            self._send(400)
        else:
            registry.blobs_of(self.path)[digest] = content
            registry.sent.append(digest)
            self._send(201)
