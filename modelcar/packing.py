"""Pack a model's files into the layers of an OCI layout: each byte is read once, and lies on the disk once.

Several layers are written at a time; each is hashed as it is written. What an interrupted run has written is
kept: finished layers as they are, and the part of a download that is known to be of the same file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from modelcar.errors import InputError, Problem, refuse
from modelcar.layer_format import layer_parts, layer_size
from modelcar.lock import LockedFile, LockedLayer
from modelcar.manifest import to_json
from modelcar.oci_layout import LayoutStore, replace_file, require_space
from modelcar.paths import printable
from modelcar.sources import BUFFER, FolderFiles, Source

#: Of zstd; higher ones take longer and gain nothing on weights.
ZSTD_LEVEL = 3
#: Bytes beside the layers: configuration, manifest, the base.
MARGIN = 8 * 2**20

#: Seconds that layers have to come to an end when the user stops the run.
GRACE = 2.0

#: Errors of a file system without room, for anybody or for this user.
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

#: Seconds between two looks whether the user stops the run.
LOOK = 0.2

#: Called with bytes as they are packed; negative where a part has to be read again.
Progress = Callable[[int], None]


CHANGED = (
    "the content is another than the one that was locked. If that is wanted, lock the model again and have "
    "the change reviewed; if not, restore the file, or fetch it from where it is whole"
)


class Stopped(Exception):
    """Another layer failed, or the user stopped the run."""


@dataclass(frozen=True)
class Packed:
    """A layer that is in the layout. sha256: of each of its files."""

    layer: LockedLayer
    sha256: Mapping[str, str]


def _until_one_fails(futures: Collection[Future[Packed]]) -> tuple[set[Future[Packed]], set[Future[Packed]]]:
    """Wait until all are done or one has failed; return those that are done, and the others.

    Not in one wait without an end: Python looks for signals between two instructions, so it would see a
    Ctrl-C that comes right before such a wait only after it.
    """
    while True:
        done, others = wait(futures, timeout=LOOK, return_when=FIRST_EXCEPTION)
        if not others or any(future.exception() for future in done):
            return done, others


class Packer:
    """Packs files of one source into one layout."""

    def __init__(
        self,
        store: LayoutStore,
        source: Source,
        *,
        compression: str = "none",
        expected: Mapping[str, str] | None = None,
        progress: Progress | None = None,
        jobs: int | None = None,
    ) -> None:
        """Take a layout that this process writes alone.

        Args:
            store: the layout.
            source: of the files.
            compression: of the layers, none or zstd.
            expected: sha256 of files that a lock names; the source knows others.
            progress: told of bytes as they are packed.
            jobs: layers that are written at a time; the source's own number where None.
        """
        self.written = 0
        self._expected = expected or {}
        self._store = store
        self._source = source
        self._compression = compression
        self._progress = progress or (lambda _: None)
        self._jobs = jobs or source.jobs
        self._record = _Record(store)
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def known(self, groups: Sequence[Sequence[str]]) -> list[Packed | None]:
        """Return the layers of these groups that are in the layout already, without reading a file."""
        return [self._known(group) for group in groups]

    def pack(
        self, groups: Sequence[Sequence[str]], locked: Sequence[LockedLayer | None] | None = None
    ) -> list[Packed]:
        """Bring a layer for each group of files into the layout.

        Args:
            groups: paths of the files of each layer.
            locked: what each layer has to come out as; None where nobody knows yet.

        Raises:
            InputError: too little disk (nothing is written then), a file is not what the lock or the hub
                says, or it cannot be read.
        """
        wanted = list(locked) if locked is not None else [None] * len(groups)
        packed = [self._known(group, layer) for group, layer in zip(groups, wanted, strict=True)]
        missing = [number for number, found in enumerate(packed) if found is None]
        if missing:
            self._remove_parts_but({self._key(groups[number], wanted[number]) for number in missing})
            self._require_space([groups[number] for number in missing])
            if isinstance(self._source, FolderFiles):
                self._source.outlast_clock_tick()
        for number, made in self._pack_all({number: (groups[number], wanted[number]) for number in missing}):
            packed[number] = made
        if locked is None:
            self._record.forget_others()
        return [made for made in packed if made is not None]

    def _known(self, group: Sequence[str], locked: LockedLayer | None = None) -> Packed | None:
        if locked is not None:
            return Packed(locked, {}) if self._store.has(locked.digest, locked.size) else None
        digests = {path: self._sha256(path) or self._recorded(path) for path in group}
        known = {path: digest for path, digest in digests.items() if digest}
        if len(known) < len(group):
            return None
        layer = self._record.layer(self._files(group, known), self._compression)
        if layer is None or not self._store.has(layer.digest, layer.size):
            return None
        self._keep(group, Packed(layer, known))
        return Packed(layer, known)

    def _recorded(self, path: str) -> str | None:
        identity = self._source.identity(path)
        return self._record.file(identity) if identity else None

    def _files(self, group: Sequence[str], sha256: Mapping[str, str]) -> list[LockedFile]:
        return [LockedFile(path, self._source.sizes[path], sha256[path]) for path in group]

    def _keep(self, group: Sequence[str], packed: Packed) -> None:
        with self._lock:
            self._record.keep_layer(
                self._files(group, packed.sha256) if packed.sha256 else [], self._compression, packed.layer
            )
            for path, digest in packed.sha256.items():
                if identity := self._source.identity(path):
                    self._record.keep_file(identity, digest)
            self._record.write()

    def _require_space(self, groups: Sequence[Sequence[str]]) -> None:
        # Not what has been downloaded before: it is there already, in `ingest`.
        needed = sum(layer_size(self._sized(group)) for group in groups)
        there = sum(part.stat().st_blocks * 512 for part in self._store.ingest.iterdir())
        require_space(self._store.path, max(needed - there, 0) + MARGIN, "the image's layers")

    def _key(self, group: Sequence[str], locked: LockedLayer | None) -> str:
        """Name the file that a layer is written to, by all that its content depends on."""
        digests = [locked.digest] if locked else [self._sha256(path) or "" for path in group]
        return hashlib.sha256(to_json([self._sized(group), digests, self._compression])).hexdigest()

    def _remove_parts_but(self, keys: Collection[str]) -> None:
        """Remove what killed runs left of files that nobody wants any more."""
        for part in self._store.ingest.iterdir():
            if part.name not in keys:
                part.unlink()

    def _sized(self, group: Sequence[str]) -> list[tuple[str, int]]:
        return [(path, self._source.sizes[path]) for path in group]

    def _pack_all(
        self, work: Mapping[int, tuple[Sequence[str], LockedLayer | None]]
    ) -> list[tuple[int, Packed]]:
        if not work:
            return []
        pool = ThreadPoolExecutor(max_workers=min(self._jobs, len(work)))
        futures: dict[int, Future[Packed]] = {}
        try:
            for number, (group, locked) in work.items():
                futures[number] = pool.submit(self._pack_one, group, locked)
            done, others = _until_one_fails(futures.values())
            if others or any(future.exception() for future in done):
                self._stop.set()
            pool.shutdown(cancel_futures=True)
        except KeyboardInterrupt:
            self._stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            running = [future for future in futures.values() if not future.cancelled()]
            wait(running, timeout=GRACE)  # not longer: a server that hangs keeps its thread
            raise
        problems: list[Problem] = []
        kinds: set[type[InputError]] = set()
        for future in futures.values():
            error = None if future.cancelled() else future.exception()
            if isinstance(error, InputError):
                problems += error.problems
                kinds.add(type(error))
            elif error is not None and not isinstance(error, Stopped):
                raise error
        if problems:
            kind = kinds.pop() if len(kinds) == 1 else InputError
            raise kind(dict.fromkeys(problems))
        return [(number, future.result()) for number, future in futures.items()]

    def _pack_one(self, group: Sequence[str], locked: LockedLayer | None) -> Packed:
        files = self._sized(group)
        resumable = self._compression == "none" and all(map(self._source.resumable, group))
        part = self._store.ingest / self._key(group, locked)
        try:
            resumed = resumable and part.exists()
            packed, problems = self._write(part, files, locked, resumed=resumed)
            if problems and resumed:  # the old part was damaged, by a power cut for one
                packed, problems = self._write(part, files, locked, resumed=False)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            raise disk_full(self._store, error) from None
        finally:
            if not resumable:
                part.unlink(missing_ok=True)
        if problems:
            part.unlink(missing_ok=True)
            raise InputError(problems)
        self._keep(group, packed)
        return packed

    def _write(
        self, part: Path, files: Sequence[tuple[str, int]], locked: LockedLayer | None, *, resumed: bool
    ) -> tuple[Packed, list[Problem]]:
        """Write one layer; return it with what is wrong with it, and adopt it where nothing is."""
        with part.open("r+b" if resumed else "w+b", buffering=0) as target:
            there = target.seek(0, 2)
            writer = _LayerWriter(target, self._compression, self._count)
            for piece in layer_parts(files):
                if isinstance(piece, bytes):
                    writer.write(piece)
                    continue
                path, size = piece
                writer.begin(path)
                kept = min(max(there - writer.position, 0), size)
                writer.take_over(kept)
                self._source.read(path, kept, writer.write)
                writer.end()
            writer.close()
        layer = LockedLayer(writer.digest, writer.size, writer.diff_id, tuple(path for path, _ in files))
        problems = list(self._differences(layer, locked, writer.sha256))
        if not problems:
            self._store.adopt(part, layer.digest)
            with self._lock:
                self.written += layer.size
        else:
            self._progress(-writer.position)
        return Packed(layer, writer.sha256), problems

    def _differences(
        self, layer: LockedLayer, locked: LockedLayer | None, sha256: Mapping[str, str]
    ) -> list[Problem]:
        said_by = "the lock" if self._expected else "the hub, or --extra,"
        problems = [
            Problem(
                f"{self._source.name}/{printable(path)}",
                f"sha256 {digest}",
                f"{said}, as {said_by} says",
                CHANGED,
            )
            for path, digest in sha256.items()
            if (said := self._sha256(path)) and said != digest
        ]
        if not problems and locked and layer.digest != locked.digest:
            value = f"make the layer {layer.digest}, though each is as the lock says"
            fix = "lock the model again: this lock is from another version of the program, or was edited"
            if layer.diff_id == locked.diff_id:
                fix = "the same content compresses differently here: use the versions of requirements.lock"
            problems = [Problem(", ".join(map(printable, layer.files)), value, locked.digest, fix)]
        return problems

    def _sha256(self, path: str) -> str | None:
        return self._expected.get(path) or self._source.sha256(path)

    def _count(self, count: int) -> None:
        if self._stop.is_set():
            raise Stopped
        self._progress(count)


def disk_full(store: LayoutStore, error: OSError) -> InputError:
    """Return the error for a disk that became full while layers were written."""
    return refuse(
        str(store.path),
        f"the disk became full while the layers were written ({error.strerror})",
        allowed="room for the image's layers",
        fix="free some (the same command tells how much is missing), and run it again: it continues",
    )


class _LayerWriter:
    """Writes one layer, hashes it and each of its files, and compresses it where that is wanted."""

    def __init__(self, target: BinaryIO, compression: str, count: Callable[[int], None]) -> None:
        self.position = 0
        self.size = 0
        self.sha256: dict[str, str] = {}
        self._target = target
        self._count = count
        self._plain = hashlib.sha256()
        self._blob = hashlib.sha256() if compression == "zstd" else self._plain
        self._zstd = (
            zstandard.ZstdCompressor(level=ZSTD_LEVEL).compressobj() if compression == "zstd" else None
        )
        self._file: Any = None
        self._path = ""
        target.seek(0)

    @property
    def digest(self) -> str:
        return f"sha256:{self._blob.hexdigest()}"

    @property
    def diff_id(self) -> str:
        return f"sha256:{self._plain.hexdigest()}"

    def begin(self, path: str) -> None:
        """Hash what follows as the content of a file."""
        self._path, self._file = path, hashlib.sha256()

    def end(self) -> None:
        self.sha256[self._path] = self._file.hexdigest()
        self._file = None

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes; those that a former run wrote are replaced by the same ones."""
        self._hash(data)
        self._put(self._zstd.compress(data) if self._zstd else data)

    def take_over(self, count: int) -> None:
        """Keep bytes that are there, from a former run."""
        while count:
            data = self._target.read(min(count, BUFFER))
            if not data:
                raise OSError("the part of a former download became shorter")
            count -= len(data)
            self.size += len(data)
            self._hash(data)

    def close(self) -> None:
        if self._zstd:
            self._put(self._zstd.flush())
        self._target.truncate(self.size)

    def _hash(self, data: bytes | memoryview) -> None:
        self._plain.update(data)
        if self._file is not None:
            self._file.update(data)
        self.position += len(data)
        self._count(len(data))

    def _put(self, data: bytes | memoryview) -> None:
        if self._blob is not self._plain:
            self._blob.update(data)
        self.size += len(data)
        view = memoryview(data)
        while view:
            view = view[self._target.write(view) :]


class _Record:
    """What is known of files and layers without reading them again, on disk beside the layout."""

    VERSION = 2

    def __init__(self, store: LayoutStore) -> None:
        self._path = store.path.parent / f".{store.path.name}.record.json"
        self._files, self._layers = self._read()
        self._kept_files: dict[str, str] = {}
        self._kept_layers: dict[str, dict[str, Any]] = {}

    def _read(self) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
        try:
            document = json.loads(self._path.read_bytes())
            if document["version"] == self.VERSION:
                return dict(document["files"]), dict(document["layers"])
        except (OSError, ValueError, LookupError, TypeError):
            pass  # no record, or not one of ours: all files are read again
        return {}, {}

    def file(self, identity: str) -> str | None:
        """Return the digest of a file that is known by what the file system says of it."""
        return self._files.get(identity)

    def layer(self, files: Sequence[LockedFile], compression: str) -> LockedLayer | None:
        """Return the layer that these files make."""
        entry = self._layers.get(_layer_key(files, compression))
        if entry is None:
            return None
        try:
            return LockedLayer(
                str(entry["digest"]),
                int(entry["size"]),
                str(entry["diffId"]),
                tuple(file.path for file in files),
            )
        except (LookupError, TypeError, ValueError):
            return None

    def keep_file(self, identity: str, sha256: str) -> None:
        """Note a file's digest."""
        self._kept_files[identity] = sha256

    def keep_layer(self, files: Sequence[LockedFile], compression: str, layer: LockedLayer) -> None:
        """Note a layer that is in the layout."""
        if files:
            entry = {"digest": layer.digest, "size": layer.size, "diffId": layer.diff_id}
            self._kept_layers[_layer_key(files, compression)] = entry

    def write(self) -> None:
        """Write at once what is known: what an interrupted run has done is not lost."""
        self._write({**self._files, **self._kept_files}, {**self._layers, **self._kept_layers})

    def forget_others(self) -> None:
        """Drop what this run did not meet."""
        if self._kept_layers:
            self._write(self._kept_files, self._kept_layers)

    def _write(self, files: Mapping[str, str], layers: Mapping[str, dict[str, Any]]) -> None:
        content = to_json({"files": files, "layers": layers, "version": self.VERSION})
        replace_file(self._path, content, synced=False)  # without it files are read again


def _layer_key(files: Sequence[LockedFile], compression: str) -> str:
    content = to_json([compression, [[file.path, file.size, file.sha256] for file in files]])
    return hashlib.sha256(content).hexdigest()
