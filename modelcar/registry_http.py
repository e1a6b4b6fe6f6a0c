"""HTTP with a registry: what counts as a registry's answer, and when it is asked again.

A proxy or a gateway may answer for a registry, with a login page and the status 200. No answer is taken for
more than the OCI distribution specification 1.1 allows.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast

import httpx

from modelcar.connections import Ways

#: Seconds that one request waits at most, all its pauses together, for a registry that has too many of them.
PATIENCE = 300.0
#: Bytes of an answer that is read at once: a manifest (OCI distribution specification 1.1), and any other.
MOST_OF_MANIFEST, MOST_OF_ANSWER = 4 * 2**20, 16 * 2**20
#: Names a request's own limit among its extensions.
MOST = "modelcar.most"
_BUSY = {httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE}


class Patience:
    """Waits as a busy registry asks, within bounds. seconds: of all pauses together."""

    def __init__(self, seconds: float = PATIENCE) -> None:
        self._left = seconds
        self._next = 1.0

    def wait(self, answer: httpx.Response) -> bool:
        """Wait before a request is sent again; False, at once, where that is no use or takes too long."""
        pause = asked_pause(answer)
        if pause is None:
            if answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
                return False
            pause, self._next = self._next, self._next * 2
        if pause > self._left:
            return False
        self._left -= max(pause, 1.0)  # a registry that asks for no pause at all is not asked for ever
        time.sleep(pause)
        return True


def asked_pause(answer: httpx.Response) -> float | None:
    """Return the seconds that a busy registry asks to wait, by number or date (RFC 9110, 10.2.3)."""
    told = answer.headers.get("Retry-After", "").strip()
    if answer.status_code not in _BUSY or not told:
        return None
    if told.isascii() and told.isdigit():
        return float(told)
    try:
        moment = parsedate_to_datetime(told)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


class RegistryClient(httpx.Client):
    """A client that sends a request again when a busy registry asks for that.

    A body that was streamed is gone: its sender has to do that (push.py). verify: whose certificates count.
    patience: seconds.
    """

    def __init__(self, *, verify: ssl.SSLContext, patience: float = PATIENCE, **options: Any) -> None:
        super().__init__(transport=_Bounded(Ways(verify)), **options)
        # What is compressed may be of any size; and blobs have the digests of their bytes as they are kept.
        self.headers["Accept-Encoding"] = "identity"
        self._patience = patience

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request, as httpx does."""
        patience = Patience(self._patience)
        if not options.get("stream"):
            request.extensions.setdefault(MOST, MOST_OF_ANSWER)
        while True:
            answer = super().send(request, **options)
            if not isinstance(request.stream, httpx.ByteStream) or not patience.wait(answer):
                return answer
            answer.close()


class NotARegistryError(httpx.HTTPStatusError):
    """The answer is no registry's: a login page, or that of a proxy."""

    what = "this is not a registry, but perhaps a login page or a proxy in front of one"

    def __init__(self, answer: httpx.Response) -> None:
        kind = answer.headers.get("Content-Type", "").partition(";")[0] or "nothing that a registry sends"
        super().__init__(
            f"{answer.request.method} {answer.url.copy_with(query=None)} answers {answer.status_code} with "
            f"{kind}: {self.what}",
            request=answer.request,
            response=answer,
        )


class TooMuchError(NotARegistryError):
    """The answer is larger than any of its kind, or was compressed though nobody asked for that."""

    what = "no answer of a registry is so large, or compressed where it was asked for plain"


class _Bounded(httpx.BaseTransport):
    """Lets no more of an answer come than is asked for: some registries are not one's own."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; of what is streamed only refusals and redirects are bounded here."""
        answer = self._inner.handle_request(request)
        most = request.extensions.get(MOST)
        refused = answer.status_code >= httpx.codes.MULTIPLE_CHOICES
        if request.method != "HEAD" and (refused or most is not None):
            answer.stream = _BoundedStream(answer, most or MOST_OF_ANSWER, cut=refused)
            if refused:
                answer.headers.pop("Content-Encoding", None)
        return answer

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()


class _BoundedStream(httpx.SyncByteStream):
    """An answer's bytes. cut: what is too much is left out, since nothing but words are read of it."""

    def __init__(self, answer: httpx.Response, most: int, *, cut: bool) -> None:
        self._answer, self._stream, self._most, self._cut = answer, answer.stream, most, cut
        self._packed = answer.headers.get("Content-Encoding", "identity").lower() != "identity"

    def __iter__(self) -> Iterator[bytes]:
        left = 0 if self._packed else self._most
        if self._packed and not self._cut:
            raise TooMuchError(self._answer)
        for piece in cast(httpx.SyncByteStream, self._stream):
            if len(piece) > left:
                if not self._cut:
                    raise TooMuchError(self._answer)
                return
            left -= len(piece)
            yield piece

    def close(self) -> None:
        """Close the connection."""
        cast(httpx.SyncByteStream, self._stream).close()


class NoManifestError(NotARegistryError):
    """What was asked for by digest, and it is no manifest: so it was pushed."""

    what = "this is no manifest of an image"


class InTheClearError(httpx.HTTPStatusError):
    """A registry that is spoken to by HTTPS leads an upload to plain HTTP."""

    fix = "let the proxy in front of it set X-Forwarded-Proto, or set the registry's external address"

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__(
            "the registry is asked by HTTPS and wants what is uploaded by plain HTTP, for anybody to read",
            request=answer.request,
            response=answer,
        )


def checked(answer: httpx.Response, *statuses: int) -> httpx.Response:
    """Return an answer that has one of these statuses and is no page.

    Raises:
        httpx.HTTPStatusError: the registry refuses, or this is none (NotARegistryError).
    """
    answer.raise_for_status()
    if answer.status_code not in statuses or _is_page(answer):
        raise NotARegistryError(answer)
    return answer


def json_of(answer: httpx.Response) -> dict[str, Any]:
    """Return the JSON object of an answer.

    Raises:
        httpx.HTTPStatusError: as `checked`, also where it holds another thing.
    """
    try:
        found = json.loads(checked(answer, httpx.codes.OK).content.decode())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise NotARegistryError(answer)
    return found


def list_in(document: dict[str, Any], name: str, kind: type, answer: httpx.Response) -> list[Any]:
    """Return a list of an answer's document; what is not there, or null as Go writes it, is empty.

    Raises:
        NotARegistryError: it is no list of this kind.
    """
    found = document.get(name)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(entry, kind) for entry in found):
        raise NotARegistryError(answer)
    return found


def has_blob(client: httpx.Client, url: str, digest: str, size: int) -> bool:
    """Tell whether a repository has a blob.

    The specification: 200, with Content-Length as the blob's size; Docker-Content-Digest, where sent, is its
    digest. An answer with neither of them proves nothing: the blob is sent once more then.

    Args:
        client: with credentials of the registry.
        url: of the repository's API.
        digest: of the blob.
        size: of the blob, in bytes.

    Raises:
        httpx.HTTPError: the registry refuses, cannot be reached, or is none (NotARegistryError).
    """
    # Compressed on its way, it would have another length.
    plain = {"Accept-Encoding": "identity"}
    answer = client.head(f"{url}/blobs/{digest}", headers=plain, follow_redirects=True)
    if answer.status_code == httpx.codes.NOT_FOUND:
        return False
    headers = checked(answer, httpx.codes.OK).headers
    wanted = {"Content-Length": str(size), "Docker-Content-Digest": digest}
    told = [name for name in wanted if name in headers]
    return bool(told) and all(headers[name] == wanted[name] for name in told)


def upload_place(client: httpx.Client, url: str, digest: str) -> httpx.URL:
    """Begin to send a blob; return where its bytes go, in one PUT.

    Raises:
        httpx.HTTPError: as `has_blob`.
    """
    started = checked(client.post(f"{url}/blobs/uploads/"), httpx.codes.ACCEPTED)
    return begun_at(url, started).copy_merge_params({"digest": digest})


def begun_at(url: str, started: httpx.Response) -> httpx.URL:
    """Return where an upload goes on that a registry began. It may be a bucket of another host.

    Raises:
        httpx.HTTPStatusError: the answer names no place (NotARegistryError), or one without TLS
            (InTheClearError).
    """
    own = httpx.URL(url)
    try:
        place = own.join(started.headers["Location"])
    except (KeyError, httpx.InvalidURL):
        raise NotARegistryError(started) from None
    if own.scheme == "https" and place.scheme != "https":
        raise InTheClearError(started)
    return place


def is_own(url: str, place: httpx.URL) -> bool:
    """Tell whether an address is of a registry's own host: credentials are for no other one."""
    own = httpx.URL(url)
    return (place.host, place.port) == (own.host, own.port) and place.scheme in {own.scheme, "https"}


def _is_page(answer: httpx.Response) -> bool:
    return "html" in str(answer.headers.get("Content-Type", "")).lower()
