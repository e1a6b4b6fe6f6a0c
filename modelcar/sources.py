"""Where a model's bytes come from: a folder, or a repository of a hub. Both are read the same way."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from modelcar import hub
from modelcar.errors import refuse
from modelcar.manifest import to_json
from modelcar.weights import WeightFile, Weights

#: Bytes read at once: what the memory is bounded by, whatever the model's size.
BUFFER = 2**20
#: Nanoseconds. Two changes within one tick of the kernel's clock leave a file with the same times.
CLOCK_TICK = 20_000_000

#: Takes the next bytes of a file; they are valid until it returns.
Sink = Callable[[bytes | memoryview], None]


class Source(Protocol):
    """A model's files.

    name: of the whole, for messages. jobs: how many files are read at once, unless somebody says otherwise.
    """

    name: str
    jobs: int

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of each file, by path: the same mapping each time, as it is asked for with each file."""

    def sha256(self, path: str) -> str | None:
        """Return a file's digest (64 hexadecimal digits) where it is known without reading the file."""

    def identity(self, path: str) -> str | None:
        """Return what changes whenever the file does; None where only its content tells."""

    def resumable(self, path: str) -> bool:
        """Tell whether a part that was read before may be kept: it is sure to be of the same file."""

    def read(self, path: str, start: int, sink: Sink) -> None:
        """Read a file from a byte on to its end."""


def pieces_of(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes, a buffer at a time."""
    with path.open("rb", buffering=0) as file:
        while piece := file.read(BUFFER):
            yield piece


class FolderFiles:
    """The files of a folder that was checked just now."""

    jobs = 2

    def __init__(self, weights: Weights, known: Mapping[str, str] | None = None) -> None:
        """Take the files, and the digests that some of them have to have."""
        self.name = str(weights.folder)
        self._known = known or {}
        self._files = {file.path: file for file in weights.files}
        self._sizes = {path: file.size for path, file in self._files.items()}

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of each file, by path."""
        return self._sizes

    def sha256(self, path: str) -> str | None:
        """Return what was said of the file; of most nobody knows before they are read."""
        return self._known.get(path)

    def identity(self, path: str) -> str | None:
        """Return what the file system says of the file."""
        file = self._files[path]
        return to_json([path, file.size, file.mtime_ns, file.ctime_ns, file.inode]).decode()

    def resumable(self, path: str) -> bool:  # noqa: ARG002
        """Read again: it may have changed, and reading is fast."""
        return False

    def read(self, path: str, start: int, sink: Sink) -> None:
        """Read a file, which has to stay as it was checked.

        Raises:
            InputError: it changed.
        """
        file = self._files[path]
        buffer = memoryview(bytearray(BUFFER))
        try:
            with file.source.open("rb", buffering=0) as source:
                changed = WeightFile.of(path, file.source, os.fstat(source.fileno())) != file
                source.seek(start)
                left = file.size - start
                while not changed and left:
                    count = source.readinto(buffer[: min(left, BUFFER)])
                    if not count:
                        break
                    left -= count
                    sink(buffer[:count])
                changed = changed or WeightFile.of(path, file.source, os.fstat(source.fileno())) != file
        except FileNotFoundError:
            changed = True
        if changed:
            raise refuse(
                str(file.source),
                "changed while it was packed",
                allowed="files that stay as they are while the image is made",
                fix="let the download or conversion end, then start again",
            )

    def outlast_clock_tick(self) -> None:
        """Wait (20 ms at most) until a change to any file would show in its times."""
        youngest = max(file.ctime_ns for file in self._files.values())
        while 0 <= time.time_ns() - youngest < CLOCK_TICK:
            time.sleep(0.002)


class HubFiles:
    """Files of a repository at a commit."""

    jobs = 4

    def __init__(
        self,
        repository: str,
        revision: str,
        files: Iterable[hub.RemoteFile],
        endpoint: str | None = None,
    ) -> None:
        self.name = repository
        self._repository = repository
        self._revision = revision
        self._files = {file.path: file for file in files}
        self._sizes = {path: file.size for path, file in self._files.items()}
        self._endpoint = endpoint

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of each file, by path."""
        return self._sizes

    def sha256(self, path: str) -> str | None:
        """Return what the hub says of large files."""
        return self._files[path].sha256

    def identity(self, path: str) -> str | None:  # noqa: ARG002
        """A commit's files never change, but only their digests are the same in other commits."""
        return None

    def resumable(self, path: str) -> bool:
        """Files are kept by their digest."""
        return self._files[path].sha256 is not None

    def read(self, path: str, start: int, sink: Sink) -> None:
        """Download a file from a byte on.

        Raises:
            InputError: the hub refuses it, or cannot be reached.
        """
        size = self._files[path].size
        hub.download(
            self._repository,
            self._revision,
            path,
            sink,
            size=size,
            start=start,
            endpoint=self._endpoint,
        )


class JoinedFiles:
    """The files of two sources as those of one; no path is in both."""

    def __init__(self, first: Source, second: Source) -> None:
        self.name = first.name
        self.jobs = first.jobs
        self._sizes = {**first.sizes, **second.sizes}
        self._of_path = {**dict.fromkeys(first.sizes, first), **dict.fromkeys(second.sizes, second)}

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of each file, by path."""
        return self._sizes

    def _of(self, path: str) -> Source:
        return self._of_path[path]

    def sha256(self, path: str) -> str | None:
        """Return what the file's own source says."""
        return self._of(path).sha256(path)

    def identity(self, path: str) -> str | None:
        """Return what the file's own source says."""
        return self._of(path).identity(path)

    def resumable(self, path: str) -> bool:
        """Tell what the file's own source says."""
        return self._of(path).resumable(path)

    def read(self, path: str, start: int, sink: Sink) -> None:
        """Read a file from its own source."""
        self._of(path).read(path, start, sink)
