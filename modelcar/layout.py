"""Pack weights into an OCI image layout, which BuildKit takes as a named build context.

One uncompressed tar layer for each large file (weights do not compress), and one for all small files, on
top of them. A layer's bytes depend on names and contents only, so that the same weights have the same
digests on every machine. A layer whose files have not changed is kept without reading them.
"""

from __future__ import annotations

import json
import os
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from modelcar.errors import refuse
from modelcar.oci_layout import (
    END_OF_TAR,
    FOLDER_MODE,
    Layer,
    Layout,
    LayoutStore,
    open_store,
    replace_file,
    require_space,
    tar_header,
    tar_padding,
    to_json,
)
from modelcar.weights import WeightFile, Weights

__all__ = ["LARGE_FILE", "MAX_LAYERS", "Layer", "Layout", "missing_bytes", "write_layout"]

#: Folder in the image that KServe links the model from.
MODELS = "models"
#: Bytes. A file of at least this size has a layer of its own, so that changing it uploads it alone.
LARGE_FILE = 16 * 2**20
#: Below what overlay file systems mount at once (127 in Docker), with room for the base's layers.
MAX_LAYERS = 100
#: Bytes read at once: what the memory is bounded by, whatever the model's size.
BUFFER = 2**20
#: KServe runs the model server as uid 1010: everybody may read, nobody writes.
FILE_MODE = 0o444
#: Nanoseconds. Two changes within one tick of the kernel's clock leave a file with the same times.
CLOCK_TICK = 20_000_000

_RECORD_VERSION = 1


def write_layout(
    weights: Weights,
    destination: Path,
    *,
    architecture: str = "amd64",
    large_file: int = LARGE_FILE,
    report: Callable[[int, int], None] | None = None,
) -> Layout:
    """Write the weights as an OCI layout and return it.

    Beside the layout a record is kept (`.NAME.record.json`) of which files each layer was made from; as
    long as their path, size, times and inode stay the same the layer is neither read nor written again.
    Two processes may write the same layout: one waits for the other.

    Args:
        weights: what `read_weights` found just now.
        destination: folder of the layout; made where missing, brought up to date where it is ours.
        architecture: OCI name of the processor the image is for. The weights do not depend on it.
        large_file: bytes from which a file has a layer of its own.
        report: called with the bytes of layers written so far and to be written in all.

    Raises:
        InputError: too little disk (nothing is written then), a file changed while it was packed, or the
            destination holds something else.
    """
    groups = group_files(weights.files, large_file)
    with open_store(destination) as store:
        record = _Record(store)
        plan = [(group, record.layer(group)) for group in groups]
        needed = sum(_layer_size(group) for group, layer in plan if not layer)
        if needed:
            require_space(store.path, needed + 2**20, "the image's layers")
            _outlast_clock_tick(file for group, layer in plan if not layer for file in group)
        layers = []
        for group, kept in plan:
            layer = kept
            if layer is None:
                layer = store.add_layer(_layer_chunks(group), [file.path for file in group])
                if report:
                    report(store.written, needed)
            record.keep(group, layer)  # at once: what an interrupted run has written is not lost
            layers.append(layer)
        layout = store.publish(layers, architecture, {})
        record.forget_others()
        return layout


def missing_bytes(weights: Weights, destination: Path, *, large_file: int = LARGE_FILE) -> int:
    """Return how many bytes `write_layout` would have to write, without writing any of them.

    Raises:
        InputError: the destination holds something else.
    """
    groups = group_files(weights.files, large_file)
    with open_store(destination) as store:
        record = _Record(store)
        return sum(_layer_size(group) for group in groups if record.layer(group) is None)


def group_files(files: Sequence[WeightFile], large_file: int) -> list[tuple[WeightFile, ...]]:
    """Return the files of each layer: large ones by path, then all small ones, which change most easily."""
    large = [file for file in files if file.size >= large_file]
    small = tuple(file for file in files if file.size < large_file)
    together = -(-len(large) // (MAX_LAYERS - 1)) or 1  # more than one to a layer for very many shards
    groups = [tuple(large[start : start + together]) for start in range(0, len(large), together)]
    return [*groups, small] if small else groups


def _layer_parts(group: Sequence[WeightFile]) -> Iterator[bytes | WeightFile]:
    """Yield what a layer consists of: bytes, and the files to copy between them."""
    folders = {PurePosixPath(MODELS)}
    for file in group:
        folders.update(PurePosixPath(MODELS, file.path).parents)
    for folder in sorted(folders - {PurePosixPath(".")}):
        yield tar_header(str(folder), FOLDER_MODE, kind=tarfile.DIRTYPE)
    for file in group:
        yield tar_header(f"{MODELS}/{file.path}", FILE_MODE, size=file.size)
        yield file
        yield tar_padding(file.size)
    yield END_OF_TAR


def _layer_size(group: Sequence[WeightFile]) -> int:
    return sum(len(part) if isinstance(part, bytes) else part.size for part in _layer_parts(group))


def _layer_chunks(group: Sequence[WeightFile]) -> Iterator[bytes | memoryview]:
    buffer = memoryview(bytearray(BUFFER))
    for part in _layer_parts(group):
        if isinstance(part, bytes):
            yield part
        else:
            yield from _content(part, buffer)


def _content(file: WeightFile, buffer: memoryview) -> Iterator[memoryview]:
    """Yield a file's content in pieces, each valid until the next; it must stay as it was checked."""
    try:
        with file.source.open("rb", buffering=0) as source:
            changed = WeightFile.of(file.path, file.source, os.fstat(source.fileno())) != file
            left = file.size
            while not changed and left:
                count = source.readinto(buffer[: min(left, len(buffer))])
                if not count:
                    break
                left -= count
                yield buffer[:count]
            changed = changed or WeightFile.of(file.path, file.source, os.fstat(source.fileno())) != file
    except FileNotFoundError:
        changed = True
    if changed:
        raise refuse(
            str(file.source),
            "changed while it was packed",
            allowed="files that stay as they are while the image is made",
            fix="let the download or conversion end, then start again",
        )


def _outlast_clock_tick(files: Iterator[WeightFile]) -> None:
    """Wait (20 ms at most) until a change to any file would show in its times."""
    youngest = max(file.ctime_ns for file in files)
    while 0 <= time.time_ns() - youngest < CLOCK_TICK:
        time.sleep(0.002)


class _Record:
    """Which layer was made from which files, on disk beside the layout."""

    def __init__(self, store: LayoutStore) -> None:
        self._store = store
        self._path = store.path.parent / f".{store.path.name}.record.json"
        self._known = self._read()
        self._kept: dict[str, dict[str, Any]] = {}

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            document = json.loads(self._path.read_bytes())
            if document["version"] == _RECORD_VERSION:
                return dict(document["layers"])
        except (OSError, ValueError, LookupError, TypeError):
            pass  # no record, or not one of ours: all layers are written again
        return {}

    def layer(self, group: Sequence[WeightFile]) -> Layer | None:
        """Return the layer made from these very files, if it is whole. Reads no file."""
        entry = self._known.get(_key(group))
        if entry is None:
            return None
        try:
            layer = Layer(str(entry["digest"]), int(entry["size"]), tuple(file.path for file in group))
            status = self._store.blob(layer.digest).stat()
        except (OSError, LookupError, TypeError, ValueError):
            return None
        whole = status.st_size == layer.size and status.st_mtime_ns == entry.get("mtime_ns")
        return layer if whole else None

    def keep(self, group: Sequence[WeightFile], layer: Layer) -> None:
        """Note a layer that is in the layout."""
        mtime = self._store.blob(layer.digest).stat().st_mtime_ns
        self._kept[_key(group)] = {"digest": layer.digest, "size": layer.size, "mtime_ns": mtime}
        self._write({**self._known, **self._kept})

    def forget_others(self) -> None:
        """Drop the entries of layers that are no longer in the layout."""
        self._write(self._kept)

    def _write(self, layers: dict[str, dict[str, Any]]) -> None:
        replace_file(self._path, to_json({"layers": layers, "version": _RECORD_VERSION}))


def _key(group: Sequence[WeightFile]) -> str:
    """Name a group by all that changes when a file does."""
    files = [[file.path, file.size, file.mtime_ns, file.ctime_ns, file.inode] for file in group]
    return to_json(files).decode()
