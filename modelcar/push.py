"""Send an image's layers straight from its layout to the registry, before the build.

BuildKit asks the registry for each layer before it takes one over from a layout. Where all are there, it
reads none: the weights do not pass through its store, which saves a copy of the model on disk and half of the
build's time (docs/benchmark.md). The build still makes and pushes the image; this only comes first.

A blob is sent as a whole, in one PUT (OCI distribution specification 1.1): Artifact Registry takes no chunks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import httpx

from modelcar.build_options import image_tag
from modelcar.errors import refuse
from modelcar.manifest import CREATED_BY, MANIFEST_TYPE, Image, ImageLayer
from modelcar.packing import Progress
from modelcar.registry import Registry, Target, connect
from modelcar.registry_http import Patience, checked, has_blob, upload_place
from modelcar.side_by_side import Work
from modelcar.sources import pieces_of

#: Layers that are sent at a time.
JOBS = 4
#: Tries of one layer, those aside that a busy registry asks to repeat.
TRIES = 3


def layers_there(image: Image, target: Target, timeout: float | None = None) -> frozenset[str]:
    """Return the digests of the layers that the registry has.

    Args:
        timeout: of a request, in seconds, for who would rather go on without knowing.

    Raises:
        httpx.HTTPError: the registry refuses, or cannot be reached.
    """
    with connect(target, write=True, timeout=timeout) as client:
        layers = image.layers
        found = Work(JOBS).all(lambda layer: has_blob(client, target.url, layer.digest, layer.size), layers)
        return frozenset(layer.digest for layer, there in zip(layers, found, strict=True) if there)


def add_image(image: Image, target: Target) -> None:
    """Write an image's configuration and manifest beside its layers, which are there.

    The image gets the tag that `up` gives to images. Cleanups delete what has none, as the rule of the
    repository that this program makes on Google Cloud.

    Raises:
        InputError: the registry refuses, or the tag names another image.
        httpx.HTTPError: it cannot be reached.
    """
    with Registry(target, write=True) as registry:
        registry.add_blob(image.config)
        registry.add_tagged(image_tag(image.digest), image.manifest, MANIFEST_TYPE)


def push_layers(
    image: Image,
    layout: Path,
    target: Target,
    progress: Progress | None = None,
    there: Collection[str] = (),
) -> int:
    """Send the layers that the registry lacks; return their bytes.

    Args:
        image: whose layers.
        layout: OCI layout with those that the registry lacks.
        target: repository.
        progress: told of bytes as they are sent.
        there: digests of layers that are known to be in the registry.

    Raises:
        httpx.HTTPError: the registry refuses, or cannot be reached. Whoever calls goes on with the build,
            which sends them too.
        InputError: a layer is not what it should be.
        OSError: a layer cannot be read.
    """
    work = Work(JOBS)
    with connect(target, write=True) as client:

        def sent(layer: ImageLayer) -> int:
            path = layout / "blobs" / layer.digest.replace(":", "/")

            def pieces() -> Iterator[bytes]:
                return work.while_wanted(pieces_of(path))

            told = progress or (lambda _: None)
            try:
                return send_blob(client, target, layer.digest, layer.size, pieces, told)
            except httpx.HTTPStatusError as error:
                if error.request.method == "PUT":
                    _require_whole(layer, path, pieces())
                raise

        return sum(work.all(sent, [layer for layer in image.layers if layer.digest not in there]))


def _require_whole(layer: ImageLayer, path: Path, pieces: Iterator[bytes]) -> None:
    """Refuse a layer that is damaged: registries do it in their own words, or as if they had failed.

    Only of one that a registry did not take, as each registry compares what it gets.

    Raises:
        InputError: its bytes are not the layer's.
    """
    hasher = hashlib.sha256()
    for piece in pieces:
        hasher.update(piece)
    if (found := f"sha256:{hasher.hexdigest()}") != layer.digest:
        raise refuse(
            str(path),
            f"its content is {found} ({layer.created_by.removeprefix(f'{CREATED_BY}: ')})",
            allowed=layer.digest,
            fix="the disk, or somebody, changed it: delete this file, then fetch the model "
            "(`python -m modelcar verify NAME` reads all of its layers)",
        )


def send_blob(
    client: httpx.Client,
    target: Target,
    digest: str,
    size: int,
    pieces: Callable[[], Iterator[bytes]],
    progress: Progress,
) -> int:
    """Send a blob as a whole, unless it is there; return the bytes that were sent.

    Args:
        client: of the target, that may write.
        target: repository.
        digest: of the blob.
        size: of the blob, in bytes.
        pieces: begins to read the blob, once for each try. What it raises ends the blob, and is raised on.
        progress: told of bytes as they are sent.

    Raises:
        httpx.HTTPError: the registry refuses, or cannot be reached after several tries.
    """
    patience, tries = Patience(), TRIES
    while True:
        counted = _Counted(progress)
        try:
            if has_blob(client, target.url, digest, size):
                progress(size)
                return 0
            answer = client.put(
                upload_place(client, target.url, digest),
                content=counted.passed_on(pieces()),
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
        except BaseException:
            counted.take_back()
            raise
        else:
            return size


class _Counted:
    """A blob's bytes, counted as they go."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._count = 0

    def passed_on(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            yield piece
            self._count += len(piece)
            self._progress(len(piece))

    def take_back(self) -> None:
        self._progress(-self._count)
