"""Write one image as an OCI image layout on disk, safely and the same everywhere.

Layout, manifest and media types follow the OCI image specification 1.1. A layout is complete once its
index.json names the image, and that file is replaced last: whoever dies in mid-write leaves the former
image, or none, never half of one.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from modelcar import progress
from modelcar.errors import refuse
from modelcar.manifest import CREATED_BY, MANIFEST_TYPE, Image, to_json

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"

#: What a layout begins with, and the folder of what is not finished.
FIRST = "oci-layout"
INGEST = "ingest"

#: Seconds that another process may have a layout before it is told that this one waits for it.
PATIENCE = 2.0
#: Seconds between two looks whether it still does.
LOOK = 0.1


@dataclass(frozen=True)
class Layout:
    """A complete OCI image layout on disk, with one image."""

    path: Path
    image: Image

    @property
    def context(self) -> str:
        """The layout as buildx and the docker-build provider take it for a named context."""
        return context_of(self.path.absolute(), self.image.digest)


def context_of(path: Path, digest: str) -> str:
    """Return a layout's image as buildx and the docker-build provider take it for a named context."""
    return f"oci-layout://{path}@{digest}"


class LayoutStore:
    """An OCI layout that this process alone writes. Made by `open_store`."""

    def __init__(self, path: Path) -> None:
        """Take the folder over; the caller holds the lock."""
        self.path = path
        self.ingest = path / INGEST
        self._blobs = path / "blobs" / "sha256"
        for part in (*path.glob(f".{FIRST}.*"), *path.glob(".index.json.*")):  # of runs that were killed
            part.unlink()
        replace_file(path / FIRST, to_json({"imageLayoutVersion": "1.0.0"}))
        self._blobs.mkdir(parents=True, exist_ok=True)
        self.ingest.mkdir(exist_ok=True)

    def blob(self, digest: str) -> Path:
        """Return where a blob is kept."""
        return self._blobs / digest.removeprefix("sha256:")

    def has(self, digest: str, size: int) -> bool:
        """Tell whether a blob is there in its full size (bytes). It was hashed when it was written."""
        try:
            return self.blob(digest).stat().st_size == size
        except FileNotFoundError:
            return False

    def adopt(self, part: Path, digest: str) -> None:
        """Make a finished file of `ingest` a blob.

        Not synced to disk, which would double the time: what a power cut loses leaves a shorter file, and
        the size is compared before a blob is used again; BuildKit hashes what it takes.
        """
        part.chmod(0o644)
        part.replace(self.blob(digest))

    def add(self, digest: str, content: bytes) -> None:
        """Write a small blob."""
        replace_file(self.blob(digest), content)

    def published(self) -> str | None:
        """Return the digest of the image that the layout holds, None where there is none."""
        try:
            index = json.loads((self.path / "index.json").read_bytes())
            return str(index["manifests"][0]["digest"])
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def publish(self, image: Image, elsewhere: Collection[str] = ()) -> Layout:
        """Make an image the layout's only one, and delete the blobs that it does not need.

        Parts of unfinished downloads stay.

        Args:
            image: the image.
            elsewhere: digests of layers that may be missing, as the registry has them.

        Raises:
            AssertionError: another layer is not in the layout.
        """
        for layer in image.layers:
            if layer.digest not in elsewhere and not self.has(layer.digest, layer.size):
                raise AssertionError(f"{layer.digest} is not in {self.path}")
        self.add(image.config_digest, image.config)
        self.add(image.digest, image.manifest)
        described = {"digest": image.digest, "mediaType": MANIFEST_TYPE, "size": len(image.manifest)}
        index = {"manifests": [described], "mediaType": INDEX_TYPE, "schemaVersion": 2}
        replace_file(self.path / "index.json", to_json(index))
        self._remove_all_but([image.config_digest, image.digest, *(layer.digest for layer in image.layers)])
        return Layout(self.path, image)

    def _remove_all_but(self, digests: Iterable[str]) -> None:
        kept = {digest.removeprefix("sha256:") for digest in digests}
        for path in self._blobs.iterdir():
            if path.name not in kept:
                path.unlink()


@contextmanager
def open_store(path: Path) -> Iterator[LayoutStore]:
    """Open a layout for writing; waits, and says so, while another process writes the same one.

    The lock keeps writers apart, not readers: a build that reads the layout while another model is
    written into it can fail on a blob that is gone, and will succeed when repeated.

    Raises:
        InputError: the folder holds something that is no layout of ours.
    """
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("a") as lock:
        _take(lock, path.name)  # released when the file is closed, by the kernel after a kill
        _refuse_foreign(path)
        path.mkdir(exist_ok=True)
        yield LayoutStore(path)


def _take(lock: TextIO, name: str) -> None:
    """Take a lock that another process may have."""
    began, told = time.monotonic(), False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told and time.monotonic() - began >= PATIENCE:
                told = True
                progress.say(f"{name} is in use by another command: waiting until that one ends", sys.stderr)
            time.sleep(LOOK)
        else:
            return


def require_space(path: Path, needed: int, what: str) -> None:
    """Check that the disk of a folder has room.

    Args:
        path: an existing folder.
        needed: bytes.
        what: what they are needed for, to follow "for".

    Raises:
        InputError: with the bytes needed and free.
    """
    free = shutil.disk_usage(path).free
    if needed > free:
        raise refuse(
            str(path),
            f"the disk has {free} bytes free ({free / 2**30:.2f} GiB)",
            allowed=f"at least {needed} bytes ({needed / 2**30:.2f} GiB) for {what}",
            fix=f"free {(needed - free) / 2**30:.2f} GiB there, or choose a folder on another disk",
        )


def replace_file(path: Path, content: bytes, *, synced: bool = True) -> None:
    """Write a file whole or not at all; leave one alone that already has this content.

    synced: wait for the disk. Else a power cut may leave an empty file under the name.
    """
    try:
        if path.read_bytes() == content:
            return
    except OSError:
        pass
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("wb") as file:
            file.write(content)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        part.chmod(0o644)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _refuse_foreign(path: Path) -> None:
    """Blobs that an index does not name are deleted, so somebody else's layout is not touched."""
    if not path.exists() and not path.is_symlink():
        return
    found = "exists and is not a folder"
    if path.is_dir():
        if not any(path.iterdir()) or _is_ours(path):
            return
        found = "holds files that this program did not write"
    raise refuse(
        str(path),
        found,
        allowed="a new or empty folder, or an image layout that this program wrote",
        fix="move what is there elsewhere, or remove it yourself",
    )


def _is_ours(path: Path) -> bool:
    index = path / "index.json"
    try:
        described = json.loads(index.read_bytes())["manifests"][0]
        config = _blob_json(path, _blob_json(path, described)["config"])
        return bool(config["history"][0]["created_by"].startswith(CREATED_BY))
    except (OSError, ValueError):  # not there, or empty or cut, as a power cut leaves it
        return _is_begun(path) and (not index.exists() or (path / INGEST).is_dir())
    except (LookupError, TypeError, AttributeError):
        return False


def _is_begun(path: Path) -> bool:
    """Tell whether a first write did not end: there is what it makes first, or a part of that."""
    return (path / FIRST).exists() or all(entry.name.startswith(f".{FIRST}.") for entry in path.iterdir())


def _blob_json(path: Path, described: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "blobs" / described["digest"].replace(":", "/")).read_bytes())
    return found
