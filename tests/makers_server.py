"""A server with the layout of the makers' servers, on this machine: each host is a folder of it."""

from __future__ import annotations

import hashlib
import http.server
import io
import platform
import ssl
import struct
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from local.downloads.members import _MACHINES


@dataclass
class Makers:
    """What is published, by path without the leading slash, and what was asked for.

    faults: for a path, what to do in place of an answer; it gets the handler and the content. The handler's
        `server.makers_over` is set when the test is over.
    """

    base: str
    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, Callable[[Any, bytes], None]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def publish(self, address: str, content: bytes, sums: str = "") -> None:
        """Publish a file at an https address, and its checksum in the format of sha256sum."""
        self.files[address.removeprefix("https://")] = content
        if sums:
            line = f"{hashlib.sha256(content).hexdigest()}  {address.rpartition('/')[2]}\n"
            self.files[sums.removeprefix("https://")] = line.encode()


@contextmanager
def serve(tls: ssl.SSLContext | None = None) -> Iterator[Makers]:
    """Serve on a free port; by HTTPS where there are certificates."""
    over = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            makers.asked.append(f"HEAD {self.path[1:]}")
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            path = self.path[1:]
            makers.asked.append(path)
            content = makers.files.get(path)
            if fault := makers.faults.get(path):
                fault(self, content or b"")
                return
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        makers_over = over

        def handle_error(self, *_: Any) -> None:
            """A client that gave up is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    makers = Makers(f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield makers
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def elf(text: bytes = b"a program", machine: int | None = None, loader: str = "") -> bytes:
    """Return what looks like a 64-bit program, of this machine where no other is said."""
    number = _MACHINES[platform.machine()] if machine is None else machine
    interpreter = loader.encode() + b"\0" if loader else b""
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQI", 2, number, 1, 0, 64, 0, 0)
    head += struct.pack("<HHHHHH", 64, 56, 1 if loader else 0, 0, 0, 0)
    entry = (
        struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, len(interpreter), len(interpreter), 1) if loader else b""
    )
    return head + entry + interpreter + text


def tar_gz(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    """Return an archive of files, without execute permission, and of symbolic links."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return packed.getvalue()
