"""Send an image's layers straight from its layout to the registry, before the build.

BuildKit asks the registry for each layer before it takes one over from a layout. Where all are there, it
reads none: the weights do not pass through its store, which saves a copy of the model on disk and half of the
time (docs/benchmark.md). The build still makes and pushes the image; this only comes first.

A blob is sent as a whole, in one PUT (OCI distribution specification 1.1): Artifact Registry takes no chunks.
"""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from docker import auth

from modelcar.manifest import Image
from modelcar.packing import Progress

#: Layers that are sent at a time.
JOBS = 4
#: Tries of one layer.
TRIES = 3
PIECE = 2**20
#: Seconds. A registry may think long about a blob of many gigabytes before it answers.
TIMEOUT = httpx.Timeout(10, read=900, write=120)


@dataclass(frozen=True)
class Target:
    """Where to. registry: HOST[:PORT]/PATH; name: repository below it. insecure: plain HTTP."""

    registry: str
    name: str
    insecure: bool = False

    @property
    def host(self) -> str:
        """HOST[:PORT] of the registry."""
        return self.registry.partition("/")[0]

    @property
    def repository(self) -> str:
        """Path of the repository."""
        path = self.registry.partition("/")[2]
        return f"{path}/{self.name}" if path else self.name

    @property
    def url(self) -> str:
        """Address of the repository's API."""
        return f"{'http' if self.insecure else 'https'}://{self.host}/v2/{self.repository}"


def layers_there(image: Image, target: Target) -> frozenset[str]:
    """Return the digests of the layers that the registry has.

    Raises:
        httpx.HTTPError: the registry refuses, or cannot be reached.
    """

    def there(client: httpx.Client, digest: str) -> bool:
        found = client.head(f"{target.url}/blobs/{digest}", follow_redirects=True)
        if found.status_code not in {httpx.codes.OK, httpx.codes.NOT_FOUND}:
            found.raise_for_status()
        return found.status_code == httpx.codes.OK

    with (
        httpx.Client(timeout=TIMEOUT, auth=RegistryAuth(target)) as client,
        ThreadPoolExecutor(JOBS) as pool,
    ):
        digests = [layer.digest for layer in image.layers]
        found = pool.map(lambda digest: there(client, digest), digests)
        return frozenset(digest for digest, is_there in zip(digests, found, strict=True) if is_there)


def push_layers(image: Image, layout: Path, target: Target, progress: Progress | None = None) -> int:
    """Send the layers that the registry lacks; return their bytes.

    Args:
        image: whose layers.
        layout: OCI layout with those that the registry lacks.
        target: repository.
        progress: told of bytes as they are sent.

    Raises:
        httpx.HTTPError: the registry refuses, or cannot be reached. Whoever calls goes on with the build,
            which sends them too.
        OSError: a layer cannot be read.
    """
    with (
        httpx.Client(timeout=TIMEOUT, auth=RegistryAuth(target)) as client,
        ThreadPoolExecutor(JOBS) as pool,
    ):
        sent = pool.map(
            lambda layer: _push(
                client, target, layout, layer.digest, layer.size, progress or (lambda _: None)
            ),
            image.layers,
        )
        return sum(sent)


def _push(
    client: httpx.Client, target: Target, layout: Path, digest: str, size: int, progress: Progress
) -> int:
    for attempt in range(1, TRIES + 1):
        found = client.head(f"{target.url}/blobs/{digest}", follow_redirects=True)
        if found.status_code == httpx.codes.OK:
            progress(size)
            return 0
        counted = _Counted(progress)
        try:
            started = client.post(f"{target.url}/blobs/uploads/").raise_for_status()
            place = httpx.URL(target.url).join(started.headers["Location"])
            path = layout / "blobs" / digest.replace(":", "/")
            client.put(
                place.copy_merge_params({"digest": digest}),
                content=counted.pieces(path),
                headers={"Content-Length": str(size), "Content-Type": "application/octet-stream"},
            ).raise_for_status()
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            counted.take_back()
            refused = isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500
            if refused or attempt == TRIES:
                raise
        else:
            return size
    return 0


class _Counted:
    """A file's bytes, counted as they go."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._count = 0

    def pieces(self, path: Path) -> Iterator[bytes]:
        with path.open("rb", buffering=0) as file:
            while piece := file.read(PIECE):
                yield piece
                self._count += len(piece)
                self._progress(len(piece))

    def take_back(self) -> None:
        self._progress(-self._count)


class RegistryAuth(httpx.Auth):
    """Credentials as docker has them (its configuration and helpers), as the registry asks for them.

    Distribution specification: a 401 names a server that gives tokens for a repository.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._header: str | None = None
        self._lock = threading.Lock()

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Ask without credentials, then with what the registry wants."""
        if self._header:
            request.headers["Authorization"] = self._header
        response = yield request
        # A body that was streamed cannot be sent again: only what comes before it asks for a token.
        if response.status_code == httpx.codes.UNAUTHORIZED and request.method != "PUT":
            with self._lock:
                self._header = self._asked(response.headers.get("WWW-Authenticate", ""))
            if self._header:
                request.headers["Authorization"] = self._header
                yield request

    def _asked(self, challenge: str) -> str | None:
        kind, _, rest = challenge.partition(" ")
        basic = self._basic()
        if kind.lower() == "basic":
            return basic
        fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        if kind.lower() != "bearer" or not fields.get("realm", "").startswith(
            ("https://", "http://") if self._target.insecure else "https://"
        ):
            return None  # no credentials in the clear
        parameters = {"scope": f"repository:{self._target.repository}:pull,push"}
        if "service" in fields:
            parameters["service"] = fields["service"]
        headers = {"Authorization": basic} if basic else {}
        answer = httpx.get(fields["realm"], params=parameters, headers=headers, timeout=30).raise_for_status()
        found: dict[str, Any] = answer.json()
        token = found.get("token") or found.get("access_token")
        return f"Bearer {token}" if token else None

    def _basic(self) -> str | None:
        try:
            known = auth.load_config().resolve_authconfig(self._target.host)
        except Exception:  # a helper that is missing or fails: as if there were no credentials
            return None
        if not known or not known.get("Username", known.get("username")):
            return None
        user = known.get("Username") or known.get("username")
        password = known.get("Password") or known.get("password") or ""
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
