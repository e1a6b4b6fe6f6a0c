"""Downloads over HTTPS: whether there is a way to them, and a file with its SHA-256.

By the standard library, so that proxies (HTTPS_PROXY, NO_PROXY) and certificates (SSL_CERT_FILE) are found as
Python finds them.
"""

from __future__ import annotations

import hashlib
import http.client
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from modelcar.progress import Count, bar

_Answer = TypeVar("_Answer")

#: Asked once whether the makers can be reached: most of the checksum files are there.
PROBED = "https://github.com/"
#: Seconds that this may take in all: a name, a connection, TLS and the first line of an answer.
PROBE_SECONDS = 1.5
#: Seconds within which at least FLOOR bytes have to come; at less than that, building is faster.
STALL, FLOOR = 20.0, 256 * 2**10
#: Bytes of a download at most. The largest, Pulumi's archive, has less than a quarter of it.
MOST = 1024 * 2**20
#: Bytes of a checksum file at most; a provenance holds all of a build.
MOST_TEXT = 16 * 2**20
_PIECE = 256 * 2**10
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_AGENT = "modelcar-kserve"


class DownloadError(Exception):
    """A download cannot be had; the message says why, in one line without a full stop."""


class Pace:
    """Gives up a download that brings too little."""

    def __init__(self, stall: float, host: str) -> None:
        self._stall, self._host = stall, host
        self._began, self._came = time.monotonic(), 0

    def add(self, size: int) -> None:
        """Count bytes.

        Raises:
            DownloadError: fewer than FLOOR came in `stall` seconds.
        """
        self._came += size
        if time.monotonic() - self._began >= self._stall:
            if self._came < FLOOR:
                raise DownloadError(f"{self._host} is slow: {self._came} bytes in {self._stall:g} s")
            self._began, self._came = time.monotonic(), 0


class _SafeRedirects(HTTPRedirectHandler):
    """Follows redirects to HTTPS, and from plain HTTP of this machine to the same."""

    max_redirections = 5

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        if not _is_safe(newurl, plain=req.type == "http"):
            raise DownloadError(f"{req.host} redirects to {newurl.partition('?')[0]}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _NoRedirects(HTTPRedirectHandler):
    """Takes a redirect for the answer that it is."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _is_safe(url: str, *, plain: bool) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or (plain and parts.scheme == "http" and parts.hostname in _LOOPBACK)


def answer_within(seconds: float, ask: Callable[[], _Answer]) -> _Answer | None:
    """Return what a question gives, None where that takes longer.

    Looking up a name has no limit of its own: a thread waits for it, and is left alone.
    """
    told: queue.SimpleQueue[_Answer] = queue.SimpleQueue()
    threading.Thread(target=lambda: told.put(ask()), daemon=True).start()
    try:
        return told.get(timeout=seconds)
    except queue.Empty:
        return None


@dataclass
class Web:
    """The way to the makers' servers, and what is known of them in this process.

    base: where all hosts are instead, as folders of one server (for tests); empty: each where it is.
    stall: seconds, as STALL.
    probe_seconds: as PROBE_SECONDS.
    """

    base: str = ""
    stall: float = STALL
    probe_seconds: float = PROBE_SECONDS
    _probed: bool = False
    _why: str = ""
    _failed: dict[str, str] = field(default_factory=dict)
    _said: set[str] = field(default_factory=set)

    def say_once(self, line: str, say: Callable[[str], None]) -> None:
        """Say a line that holds for all that this process downloads."""
        if line not in self._said:
            self._said.add(line)
            say(line)

    def place(self, url: str) -> str:
        """Return where an address of a maker's is asked for."""
        return f"{self.base}/{url.removeprefix('https://')}" if self.base else url

    def unreachable(self) -> str:
        """Return why the makers cannot be reached from here, nothing where they can; asked once a process.

        Not even a name server that never answers takes longer than `probe_seconds`.
        """
        if not self._probed:
            said = answer_within(self.probe_seconds, self._probe)
            silent = f"no answer of {urlsplit(PROBED).hostname} in {self.probe_seconds:g} s"
            self._why = silent if said is None else said
            self._probed = True
        return self._why

    def _probe(self) -> str:
        request = Request(self.place(PROBED), method="HEAD", headers={"User-Agent": _AGENT})  # noqa: S310
        try:
            with build_opener(_NoRedirects).open(request, timeout=self.probe_seconds):
                return ""
        except HTTPError:
            return ""  # whatever it says, there is a way
        except (OSError, http.client.HTTPException) as error:
            return f"{urlsplit(PROBED).hostname}: {_reason(error)}"

    def text(self, url: str) -> str:
        """Return a small file's text.

        Raises:
            DownloadError: it cannot be had, or is too large.
        """
        content = b"".join(self._pieces(url, MOST_TEXT))
        return content.decode(errors="replace")

    def download(self, url: str, target: Path) -> str:
        """Write a file to `target`, and return its SHA-256; what is left there on an error is not whole.

        Raises:
            DownloadError: it cannot be had, is cut, or comes too slowly.
            OSError: it cannot be written.
        """
        digest = hashlib.sha256()
        with target.open("wb") as file, bar(f"   downloading {url.rpartition('/')[2]}", None) as count:
            for piece in self._pieces(url, MOST, count):
                digest.update(piece)
                file.write(piece)
        return digest.hexdigest()

    def _pieces(self, url: str, most: int, count: Count | None = None) -> Iterator[bytes]:
        host = str(urlsplit(url).hostname)
        place = self.place(url)
        if why := self._failed.get(host):
            raise DownloadError(why)
        if not _is_safe(place, plain=True):
            raise DownloadError(f"{place} is not https")
        request = Request(place, headers={"User-Agent": _AGENT})  # noqa: S310
        with self._in_words(host):
            answer = build_opener(_SafeRedirects).open(request, timeout=self.stall)
        with answer:
            told = answer.headers.get("Content-Length", "")
            size = int(told) if told.isdecimal() else None
            came, pace = 0, Pace(self.stall, host)
            if size is not None and size > most:
                raise DownloadError(f"{host} offers {size} bytes, more than {most // 2**20} MiB")
            if count:
                count.total = size
            while True:
                with self._in_words(host):
                    piece: bytes = answer.read1(_PIECE)
                if not piece:
                    break
                came += len(piece)
                if came > most:
                    raise DownloadError(f"{host} sends more than {most // 2**20} MiB")
                pace.add(len(piece))
                if count:
                    count(len(piece))
                yield piece
        if size is not None and came != size:
            raise DownloadError(f"{host} cut the connection after {came} of {size} bytes")

    @contextmanager
    def _in_words(self, host: str) -> Iterator[None]:
        try:
            yield
        except HTTPError as error:
            error.close()
            raise DownloadError(f"{host} answers {error.code}") from None
        except URLError as error:  # no connection: nothing else is asked of it
            self._failed[host] = f"{host} cannot be reached ({_reason(error)})"
            raise DownloadError(self._failed[host]) from None
        except TimeoutError:
            self._stalled(host)
        except (OSError, http.client.HTTPException) as error:
            raise DownloadError(f"{host} cut the connection ({_reason(error)})") from None

    def _stalled(self, host: str) -> NoReturn:
        raise DownloadError(f"{host} sent nothing for {self.stall:g} s") from None


def _reason(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return " ".join(str(reason).split()) or type(reason).__name__


#: Of this process.
WEB = Web()
