"""The parts of a bundle: one long stream of bytes, cut into files of a chosen size."""

from __future__ import annotations

import hashlib
import io
import os
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

from local.bundle.manifest import Manifest, Part
from modelcar.errors import InputError, Problem
from modelcar.progress import bar

BLOCK = 2**20
PREFIX = "bundle."


def name(number: int) -> str:
    """Return the name of a part."""
    return f"{PREFIX}{number:03d}"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Cutter:
    """Writes the stream, and begins a new part where one is full."""

    def __init__(self, folder: Path, part_size: int) -> None:
        self.folder, self.part_size = folder, part_size
        self.parts: list[Part] = []
        self.position = 0
        self._file: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self._room = 0

    def copy(self, path: Path) -> None:
        """Append a file's content."""
        with path.open("rb") as source:
            while block := source.read(BLOCK):
                self._write(memoryview(block))

    def close(self) -> tuple[Part, ...]:
        """End the last part, and return all of them."""
        self._end_part()
        return tuple(self.parts)

    def _write(self, block: memoryview) -> None:
        while block:
            if not self._room:
                self._end_part()
                self._file = (self.folder / name(len(self.parts))).open("wb")
                self._digest, self._room = hashlib.sha256(), self.part_size
            if self._file is None:
                raise ValueError("no part is open")
            piece = block[: self._room]
            self._file.write(piece)
            self._digest.update(piece)
            self._room -= len(piece)
            self.position += len(piece)
            block = block[len(piece) :]

    def _end_part(self) -> None:
        if self._file is None:
            return
        size = self.part_size - self._room
        self._file.close()
        self._file, self._room = None, 0
        self.parts.append(Part(name(len(self.parts)), size, self._digest.hexdigest()))


class Stream(io.RawIOBase):
    """A stretch of the stream, read from its parts."""

    def __init__(self, folder: Path, parts: Sequence[Part], offset: int, size: int) -> None:
        super().__init__()
        self.folder, self.parts = folder, parts
        self.starts = [0, *accumulate(part.size for part in parts)]
        self.position, self.end = offset, offset + size
        self._number = -1
        self._file: BinaryIO | None = None

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Read what is left of the current part, as far as it fits."""
        if self.position >= self.end:
            return 0
        number = bisect_right(self.starts, self.position) - 1
        if number != self._number:
            self.close_part()
            self._file, self._number = (self.folder / self.parts[number].name).open("rb"), number
            self._file.seek(self.position - self.starts[number])
        if self._file is None:
            raise ValueError("no part is open")
        wanted = min(len(buffer), self.end - self.position, self.starts[number + 1] - self.position)
        block = self._file.read(wanted)
        buffer[: len(block)] = block
        self.position += len(block)
        return len(block)

    def close_part(self) -> None:
        """Close the part that is open."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def close(self) -> None:
        """Close everything."""
        self.close_part()
        super().close()


def verify(manifest: Manifest, folder: Path) -> None:
    """Look whether every part is there and has not changed; sizes first, as they are cheap to see.

    Raises:
        InputError: parts are missing, half-copied or changed: all of them are named.
    """
    wrong = [problem for part in manifest.parts if (problem := _wrong_size(part, folder))]
    _raise(wrong)
    size = sum(part.size for part in manifest.parts)
    # hashlib works without the interpreter's lock
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool, bar("   checking", size) as count:
        found = []
        for part, digest in zip(
            manifest.parts, pool.map(lambda one: sha256_of(folder / one.name), manifest.parts), strict=True
        ):
            found.append(digest)
            count(part.size)
    _raise(
        Problem(
            str(folder / part.name),
            f"changed: SHA-256 {digest[:16]}…",
            f"{part.sha256[:16]}…, as its manifest says",
            "copy this part again",
        )
        for part, digest in zip(manifest.parts, found, strict=True)
        if digest != part.sha256
    )


def _raise(problems: Iterable[Problem]) -> None:
    if found := list(problems):
        raise InputError(found)


def _wrong_size(part: Part, folder: Path) -> Problem | None:
    path = folder / part.name
    try:
        size = path.stat().st_size
    except OSError:
        return Problem(str(path), "missing", f"a file of {part.size} bytes", "copy this part")
    if size == part.size:
        return None
    found = f"{size} bytes" + (", copied in part" if size < part.size else "")
    return Problem(str(path), found, f"{part.size} bytes, as its manifest says", "copy this part again")
