"""Send an image's layers straight from its layout to the registry, before the build.

BuildKit asks the registry for each layer before it takes one over from a layout. Where all are there, it
reads none: the weights do not pass through its store, which saves a copy of the model on disk and half of the
time (docs/benchmark.md). The build still makes and pushes the image; this only comes first.

A blob is sent as a whole, in one PUT (OCI distribution specification 1.1): Artifact Registry takes no chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from modelcar.manifest import Image
from modelcar.packing import Progress
from modelcar.registry import Target, connect
from modelcar.registry_http import Patience, checked, has_blob, upload_place

#: Layers that are sent at a time.
JOBS = 4
#: Tries of one layer, those aside that a busy registry asks to repeat.
TRIES = 3
PIECE = 2**20


def layers_there(image: Image, target: Target, timeout: float | None = None) -> frozenset[str]:
    """Return the digests of the layers that the registry has.

    Args:
        timeout: of a request, in seconds, for who would rather go on without knowing.

    Raises:
        httpx.HTTPError: the registry refuses, or cannot be reached.
    """

    with (
        connect(target, write=True, timeout=timeout) as client,
        ThreadPoolExecutor(JOBS) as pool,
    ):
        layers = image.layers
        found = pool.map(lambda layer: has_blob(client, target.url, layer.digest, layer.size), layers)
        return frozenset(layer.digest for layer, there in zip(layers, found, strict=True) if there)


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
        connect(target, write=True) as client,
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
    patience, tries = Patience(), TRIES
    while True:
        counted = _Counted(progress)
        try:
            if has_blob(client, target.url, digest, size):
                progress(size)
                return 0
            path = layout / "blobs" / digest.replace(":", "/")
            answer = client.put(
                upload_place(client, target.url, digest),
                content=counted.pieces(path),
                headers={"Content-Length": str(size), "Content-Type": "application/octet-stream"},
                follow_redirects=False,  # its body would be gone
            )
            checked(answer, httpx.codes.CREATED)
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            counted.take_back()
            if isinstance(error, httpx.HTTPStatusError):
                if patience.wait(error.response):
                    continue
                if error.response.status_code < 500:
                    raise
            tries -= 1
            if not tries:
                raise
        else:
            return size


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
