"""Read one layer from a mirror: in pieces, checked as they come, and gone on with after a cut."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import httpx

from modelcar import mirrors
from modelcar.mirrors import Blob, name_of, said
from modelcar.registry import Target
from modelcar.registry_http import checked

if TYPE_CHECKING:
    from hashlib import _Hash

#: Bytes that are read at a time; a copy holds two such pieces of each layer in memory.
PIECE = 2**20
#: Layers that a mirror may fail to bring before it is asked for no others.
STRIKES = 3


class MirrorError(Exception):
    """A mirror's layer could not be had, or is another one; the text says why."""


class Strikes:
    """Tells of layers that mirrors do not bring, and leaves a mirror out after STRIKES of them."""

    def __init__(self, note: Callable[[str], None]) -> None:
        """Take what is told of it, a line at a time."""
        self._note = note
        self._count: Counter[Target] = Counter()
        self._lock = threading.Lock()

    def out(self, mirror: Target) -> bool:
        """Tell whether a mirror is asked no more."""
        with self._lock:
            return self._count[mirror] >= STRIKES

    def add(self, mirror: Target, layer: Blob, error: MirrorError) -> None:
        """Note that a mirror did not bring a layer."""
        self._note(f"mirror {name_of(mirror)} does not bring {layer.digest}: it {error}")
        with self._lock:
            self._count[mirror] += 1
            last = self._count[mirror] == STRIKES
        if last:
            self._note(f"mirror {name_of(mirror)} is asked for no more layers in this run")


def read_blob(
    client: httpx.Client,
    mirror: Target,
    layer: Blob,
    *,
    start: int = 0,
    hasher: _Hash | None = None,
) -> Iterator[bytes]:
    """Yield a layer's bytes. The last piece comes only once all of them are known to be right.

    Args:
        client: that reads the mirror.
        mirror: repository.
        layer: that is wanted.
        start: bytes that are there already.
        hasher: SHA-256 of those.

    Raises:
        MirrorError: the mirror refuses, breaks off for good, or sends something else.
    """
    hasher = hasher or hashlib.sha256()
    position, held, waits = start, b"", iter(mirrors.WAITS)
    while position < layer.size:
        before = position
        try:
            for piece in _pieces(client, mirror, layer, position):
                if held:
                    yield held
                hasher.update(piece)
                position += len(piece)
                held = piece
            broken: Exception = httpx.ReadError("the answer ends too early")
        except (httpx.HTTPError, httpx.StreamError) as error:
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500:
                raise MirrorError(said(error)) from None
            broken = error
        if position >= layer.size:
            break
        waits = iter(mirrors.WAITS) if position > before else waits
        wait = next(waits, None)
        if wait is None:
            raise MirrorError(f"broke off at byte {position} of {layer.size}: {said(broken)}") from None
        time.sleep(wait)
    if (found := f"sha256:{hasher.hexdigest()}") != layer.digest:
        raise MirrorError(f"sends other bytes: {found} in place of {layer.digest}")
    if held:
        yield held


def _pieces(client: httpx.Client, mirror: Target, layer: Blob, position: int) -> Iterator[bytes]:
    """Yield a layer's bytes from a byte on, as one request brings them; never more than it has.

    Raises:
        httpx.HTTPError: the mirror refuses, breaks off, or is no registry.
        MirrorError: it has another number of bytes.
    """
    headers = {"Accept-Encoding": "identity"}  # the digest is of the bytes as they are kept
    if position:
        headers["Range"] = f"bytes={position}-"
    with client.stream("GET", f"{mirror.url}/blobs/{layer.digest}", headers=headers) as answer:
        checked(answer, *([httpx.codes.OK, httpx.codes.PARTIAL_CONTENT] if position else [httpx.codes.OK]))
        passed_over = position if answer.status_code == httpx.codes.OK else 0
        left = layer.size - position + passed_over
        told = answer.headers.get("Content-Length", str(left))
        part = answer.status_code == httpx.codes.PARTIAL_CONTENT and told.isdecimal() and int(told) < left
        if told != str(left) and not part:  # of a range less may come than was asked for (RFC 9110, 15.3.7)
            raise MirrorError(f"has {told} bytes in place of {left}")
        for piece in answer.iter_raw(PIECE):
            left -= len(piece)
            if left < 0:
                raise MirrorError(f"sends more than the {layer.size} bytes of this layer")
            if passed_over:
                passed, piece = piece[:passed_over], piece[passed_over:]
                passed_over -= len(passed)
            if piece:
                yield piece
