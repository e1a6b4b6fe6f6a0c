"""Bring a locked model onto this machine, as the layers of its image, and check it against its lock."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from modelcar import extra as extra_files
from modelcar import kernel_store
from modelcar.base import Base, add_base_layer
from modelcar.errors import InputError, Problem
from modelcar.hub import RemoteFile
from modelcar.image import modelcar_image
from modelcar.kernels import Kernels
from modelcar.lock import FolderSource, Lock, LockedLayer
from modelcar.manifest import Image
from modelcar.oci_layout import Layout, LayoutStore, open_store
from modelcar.packing import CHANGED, Packer, Progress
from modelcar.side_by_side import Work
from modelcar.sources import FolderFiles, HubFiles, JoinedFiles, Source, pieces_of
from modelcar.weights import WeightFile, Weights, read_weights

if TYPE_CHECKING:
    from modelcar.registry import Target


@dataclass(frozen=True)
class Fetched:
    """A model whose layout is complete.

    written: bytes of layers that were not there before. origins: of those that mirrors brought, by digest.
    """

    layout: Layout
    written: int
    origins: Mapping[str, str] = field(default_factory=dict)


def fetch(
    lock: Lock,
    base: Base,
    project: Path,
    destination: Path,
    *,
    endpoint: str | None = None,
    progress: Progress | None = None,
    jobs: int | None = None,
    elsewhere: Collection[str] = (),
    mirrors: Sequence[Target] = (),
    note: Callable[[str], None] | None = None,
) -> Fetched:
    """Bring what the lock names into the layout, and publish the image there. Resumes.

    Layers that are there are not read again (`verify` does); a layer that comes out otherwise than the lock
    says is not kept.

    Args:
        lock: of the model.
        base: the programs beside the weights.
        project: folder that a locked folder is relative to.
        destination: folder of the layout.
        endpoint: address of the hub, or of a mirror; None for the hub's own, or HF_ENDPOINT.
        progress: told of bytes as they come.
        jobs: files that are fetched at a time.
        elsewhere: digests of layers that are not needed here, as the registry has them.
        mirrors: repositories that layers are taken from before the hub.
        note: told of mirrors that cannot be used, and of layers that they do not bring.

    Raises:
        InputError: the source differs from the lock, cannot be read, kernels are nowhere, or the disk is too
            full.
    """
    with open_store(destination) as store:
        add_base_layer(store, base)  # first: where it cannot be had, nothing is downloaded for hours
        written = 0
        origins: dict[str, str] = {}
        lacking = _missing_blobs(store, lock, elsewhere)
        if mirrors and lacking:
            from modelcar.mirror_fetch import fetch_from_mirrors  # with a client of registries

            origins = fetch_from_mirrors(store, lacking, mirrors, progress=progress, note=note, jobs=jobs)
            written = sum(layer.size for layer in lacking if layer.digest in origins)
        if missing := missing_layers(store, lock, elsewhere):
            source = _source(lock, missing, project, endpoint)
            expected = {file.path: file.sha256 for file in lock.files}
            packer = Packer(
                store,
                source,
                compression=lock.compression,
                expected=expected,
                progress=progress,
                jobs=jobs,
            )
            packer.pack([layer.files for layer in missing], missing)
            written += packer.written
        kernel_store.bring(store, lock, project, elsewhere)
        return Fetched(store.publish(modelcar_image(lock, base), elsewhere), written, origins)


def missing_layers(store: LayoutStore, lock: Lock, elsewhere: Collection[str] = ()) -> list[LockedLayer]:
    """Return the layers of a lock that are neither in a layout nor elsewhere."""
    return [
        layer
        for layer in lock.layers
        if layer.digest not in elsewhere and not store.has(layer.digest, layer.size)
    ]


def missing_layers_at(lock: Lock, destination: Path, elsewhere: Collection[str] = ()) -> list[LockedLayer]:
    """Return the layers that `fetch` would have to bring.

    Raises:
        InputError: the destination holds something else.
    """
    with open_store(destination) as store:
        return missing_layers(store, lock, elsewhere)


def missing_bytes(lock: Lock, destination: Path, elsewhere: Collection[str] = ()) -> int:
    """Return how many bytes of layers `fetch` would have to bring.

    Raises:
        InputError: the destination holds something else.
    """
    with open_store(destination) as store:
        return sum(blob.size for blob in _missing_blobs(store, lock, elsewhere))


def _missing_blobs(store: LayoutStore, lock: Lock, elsewhere: Collection[str]) -> list[LockedLayer | Kernels]:
    return [*missing_layers(store, lock, elsewhere), *kernel_store.missing(store, lock, elsewhere)]


def is_complete(image: Image, destination: Path, elsewhere: Collection[str] = ()) -> bool:
    """Tell whether a layout holds this very image, but for layers that are elsewhere. Reads no weights."""
    if not destination.is_dir():
        return False
    with open_store(destination) as store:
        blobs = [(layer.digest, layer.size) for layer in image.layers if layer.digest not in elsewhere]
        blobs += [(image.digest, len(image.manifest)), (image.config_digest, len(image.config))]
        return store.published() == image.digest and all(store.has(*blob) for blob in blobs)


def verify(
    lock: Lock, destination: Path, *, progress: Progress | None = None, jobs: int = 2
) -> tuple[Problem, ...]:
    """Read every layer of the layout again and return what differs from the lock."""
    work = Work(jobs)
    with open_store(destination) as store:

        def read(layer: LockedLayer) -> Problem | None:
            path = store.blob(layer.digest)
            return _verify(path, layer, work.while_wanted(pieces_of(path)), progress or (lambda _: None))

        return tuple(problem for problem in work.all(read, lock.all_layers) if problem)


def _verify(path: Path, layer: LockedLayer, pieces: Iterator[bytes], progress: Progress) -> Problem | None:
    key = str(path)
    shown = ", ".join(layer.files[:3]) + (" …" if len(layer.files) > 3 else "")
    hasher, size = hashlib.sha256(), 0
    try:
        for piece in pieces:
            hasher.update(piece)
            size += len(piece)
            progress(len(piece))
    except FileNotFoundError:
        return Problem(key, f"not there (layer of {shown})", f"{layer.size} bytes", "fetch the model")
    found = f"sha256:{hasher.hexdigest()}"
    if found == layer.digest and size == layer.size:
        return None
    return Problem(
        key,
        f"{size} bytes, {found} (layer of {shown})",
        f"{layer.size} bytes, {layer.digest}",
        "the disk, or somebody, changed it: delete this file, then fetch the model",
    )


def _source(lock: Lock, missing: Sequence[LockedLayer], project: Path, endpoint: str | None) -> Source:
    paths = {path for layer in missing for path in layer.files}
    files = [file for file in lock.files if file.path in paths]
    if not isinstance(lock.source, FolderSource):
        others = {extra.path for extra in lock.extra}
        remote = [RemoteFile(file.path, file.size, file.sha256) for file in files if file.path not in others]
        own = HubFiles(lock.source.repository, lock.source.revision, remote, endpoint)
        beside = [file for file in files if file.path in others]
        return JoinedFiles(own, extra_files.bring(lock, beside, project)) if beside else own
    # What may be in a model was judged when it was locked.
    weights = read_weights(
        project / lock.source.path, only={file.path for file in lock.files}, allow_pickle=True, layout="any"
    )
    there = {file.path: file for file in weights.files}
    problems = [
        Problem(f"{weights.folder}/{file.path}", found, f"{file.size} bytes, as the lock says", CHANGED)
        for file in files
        if (found := _size(there.get(file.path))) != f"{file.size} bytes"
    ]
    if problems:
        raise InputError(problems)
    wanted = tuple(there[file.path] for file in files)
    return FolderFiles(
        Weights(weights.folder, wanted, sum(file.size for file in wanted), weights.config, weights.parameters)
    )


def _size(file: WeightFile | None) -> str:
    return f"{file.size} bytes" if file else "there is no such file"
