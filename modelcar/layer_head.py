"""The beginning of an image's layer: which files it has, without pulling all of it.

A tar archive names its files one after another, and builders write a folder's files by name: `config.json`
comes before `model.safetensors`. So a few megabytes of a layer tell most of what there is to know. Of an
archive that is not compressed the files' names are read alone, and what they hold is passed over.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import zstandard

from modelcar.manifest import LAYER_TYPES
from modelcar.registry import Registry
from modelcar.tar_members import READ_ERRORS, require_sized

#: Bytes of one layer that are read at most, as they are pulled. Small bases (busybox, Alpine) have less.
HEAD = 8 * 2**20
#: Bytes of it unpacked: what compresses well must not fill the memory.
UNPACKED = 64 * 2**20
#: Seconds for one layer.
TIME = 10.0
#: Bytes that are asked for at once, and how often, where names are read alone.
PIECE, PIECES = 64 * 1024, 256
#: Media types of layers that are not compressed.
PLAIN = frozenset({LAYER_TYPES["none"], "application/vnd.docker.image.rootfs.diff.tar"})
#: Bytes. A larger config.json is no model's.
LARGEST_CONFIG = 2**20
#: Bytes. Files' names and what else a header has take less.
LARGEST_READ = 2 * LARGEST_CONFIG

CONFIG = "models/config.json"
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
#: zstd:chunked begins with a frame that decoders skip (RFC 8878, 3.1.2).
_SKIPPABLE = frozenset(bytes([first, 0x2A, 0x4D, 0x18]) for first in range(0x50, 0x60))


@dataclass(frozen=True)
class Entry:
    """A file of a layer. kind: file, folder, link (symbolic) or other. target: of a link."""

    kind: str
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    target: str = ""

    def readable_by(self, user: int) -> bool:
        """Tell whether a user may read it whom the image does not know; the runtime puts him in group 0."""
        wanted = 0o5 if self.kind == "folder" else 0o4
        shift = 6 if self.uid == user else 3 if self.gid == 0 else 0
        return self.mode >> shift & wanted == wanted


@dataclass(frozen=True)
class LayerHead:
    """What was read of a layer.

    files: by path, without a leading slash, in the archive's order. whole: whether that is all of it.
    config: the model's config.json, where it was read. why: what ended it early.
    """

    files: dict[str, Entry] = field(default_factory=dict)
    whole: bool = False
    config: bytes | None = None
    why: str = ""


def read_head(registry: Registry, layer: Mapping[str, Any]) -> LayerHead:
    """Return what the beginning of a layer has; never raises for what it holds, or that it cannot be had.

    Args:
        layer: its descriptor in the manifest.
    """
    digest, size = str(layer["digest"]), int(layer["size"])
    files: dict[str, Entry] = {}
    found: dict[str, bytes] = {}
    try:
        if layer.get("mediaType") in PLAIN and size > PIECE and _names(registry, digest, size, files, found):
            return LayerHead(files, whole=True, config=found.get(CONFIG))
        with registry.stream(digest) as pieces:
            whole = _read(_Limited(_Pieces(pieces), HEAD), files, found)
    except _EnoughError as error:
        return LayerHead(files, config=found.get(CONFIG), why=str(error))
    except (httpx.HTTPError, OSError, zlib.error, zstandard.ZstdError, LookupError, *READ_ERRORS) as error:
        return LayerHead(files, config=found.get(CONFIG), why=f"{type(error).__name__}: {error}")
    return LayerHead(files, whole, found.get(CONFIG), "" if whole else "the files before are large")


def _names(
    registry: Registry, digest: str, size: int, files: dict[str, Entry], found: dict[str, bytes]
) -> bool:
    """Fill in the files of an archive that is not compressed; False where the registry gives no parts."""
    first = registry.part(digest, 0, PIECE)
    if first is None:
        return False
    with tarfile.open(fileobj=_Parts(registry, digest, size, first), mode="r:") as archive:
        for member in archive:
            require_sized(member)
            _note(archive, member, files, found)
    return True


def _read(raw: _Limited, files: dict[str, Entry], found: dict[str, bytes]) -> bool:
    """Fill in the files in the archive's order; return whether all of them were read."""
    stream = _Limited(_unpacked(raw), UNPACKED)
    # A stream is read once, from its beginning.
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            _note(archive, member, files, found)
            if member.size > min(raw.left * 4, stream.left):
                return False  # to pass over it takes more than may be read
    return True


def _note(
    archive: tarfile.TarFile, member: tarfile.TarInfo, files: dict[str, Entry], found: dict[str, bytes]
) -> None:
    path = _clean(member.name)
    files[path] = _entry(member)
    if path == CONFIG and member.isreg() and member.size <= LARGEST_CONFIG:
        file = archive.extractfile(member)
        found[CONFIG] = file.read() if file else b""


def _clean(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in {"", "."})


def _entry(member: tarfile.TarInfo) -> Entry:
    kind = (
        "folder"
        if member.isdir()
        else "link"
        if member.issym()
        else "file"
        if member.isreg() or member.islnk()
        else "other"
    )
    return Entry(kind, member.mode, member.uid, member.gid, member.linkname if kind == "link" else "")


def _unpacked(raw: _Limited) -> Any:
    """Return a layer's archive by what its first bytes say it is, whatever the manifest calls it."""
    buffered = io.BufferedReader(raw, 64 * 1024)
    start = buffered.peek(4)[:4]
    if start.startswith(_GZIP):
        return gzip.GzipFile(fileobj=buffered)
    if start == _ZSTD or start in _SKIPPABLE:
        return zstandard.ZstdDecompressor().stream_reader(buffered, read_across_frames=True)
    return buffered


class _EnoughError(Exception):
    """As much was read as may be."""


class _Parts(io.RawIOBase):
    """A blob of a registry that gives parts: it is read where somebody looks. first: its beginning."""

    def __init__(self, registry: Registry, digest: str, size: int, first: bytes) -> None:
        super().__init__()
        self._registry, self._digest, self._size = registry, digest, size
        self._at, self._start, self._part, self._left = 0, 0, first, PIECES
        self._end = time.monotonic() + TIME

    def readable(self) -> bool:
        """As it is."""
        return True

    def seekable(self) -> bool:
        """As it is."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place, which costs nothing."""
        self._at = {0: 0, 1: self._at, 2: self._size}[whence] + offset
        return self._at

    def tell(self) -> int:
        """Return the place."""
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Return so many bytes, fewer at the end. A header may claim any number of them.

        Raises:
            _EnoughError: as `readinto`, or it is more than any file has that is read.
        """
        left = max(0, self._size - self._at)
        size = left if size < 0 else min(size, left)
        if size > LARGEST_READ:
            raise _EnoughError(f"a header of it claims {size} bytes")
        found = bytearray()
        while len(found) < size:
            piece = bytearray(size - len(found))
            taken = self.readinto(piece)
            if not taken:
                break
            found += piece[:taken]
        return bytes(found)

    def readinto(self, buffer: Any) -> int:
        """Bring some bytes; none at the end.

        Raises:
            _EnoughError: it was asked for too many parts, or it took too long.
        """
        if time.monotonic() > self._end:
            raise _EnoughError(f"it took more than {TIME:.0f} s")
        if not 0 <= self._at < self._size:
            return 0
        if not self._start <= self._at < self._start + len(self._part):
            if not self._left:
                raise _EnoughError("it has very many files")
            self._left -= 1
            self._start = self._at
            self._part = self._registry.part(self._digest, self._at, PIECE) or b""
        begin = self._at - self._start
        taken = self._part[begin : begin + len(buffer)]
        buffer[: len(taken)] = taken
        self._at += len(taken)
        return len(taken)


class _Pieces(io.RawIOBase):
    """A file of the pieces that a connection brings."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces, self._rest = pieces, b""
        self._end = time.monotonic() + TIME

    def readable(self) -> bool:
        """As it is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Bring some bytes; none at the end."""
        if time.monotonic() > self._end:
            raise _EnoughError(f"it took more than {TIME:.0f} s")
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        taken, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)


class _Limited(io.RawIOBase):
    """A file of which only so much is read. left: bytes."""

    def __init__(self, source: Any, limit: int) -> None:
        super().__init__()
        self._source, self.left, self._limit = source, limit, limit

    def readable(self) -> bool:
        """As it is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Bring some bytes; none at the end.

        Raises:
            _EnoughError: the limit is reached.
        """
        if self.left <= 0:
            raise _EnoughError(f"its first {self._limit // 2**20} MiB were read")
        taken = self._source.read(min(len(buffer), self.left)) or b""
        buffer[: len(taken)] = taken
        self.left -= len(taken)
        return len(taken)
