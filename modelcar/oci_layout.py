"""Write one image as an OCI image layout on disk, safely and the same everywhere.

Layout, manifest and media types follow the OCI image specification 1.1. A layout is complete once its
index.json names the image, and that file is replaced last: whoever dies in mid-write leaves the former
image, or none, never half of one. Bytes on disk depend on the image's contents only.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelcar.errors import refuse

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
EPOCH = "1970-01-01T00:00:00Z"

#: Begins the history of every image made here; by it a layout is known to be ours.
CREATED_BY = "modelcar"

FOLDER_MODE = 0o755
END_OF_TAR = b"\0" * (2 * tarfile.BLOCKSIZE)


@dataclass(frozen=True)
class Layer:
    """One layer. Being uncompressed, its digest is its diff ID too.

    size: bytes. files: paths as in the source folder.
    """

    digest: str
    size: int
    files: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """A complete OCI image layout on disk, with one image.

    total_size: bytes of layers, configuration and manifest.
    written: bytes of layers that had to be written this time; 0 where nothing had changed.
    """

    path: Path
    manifest_digest: str
    layers: tuple[Layer, ...]
    total_size: int
    written: int = field(default=0, compare=False)

    @property
    def context(self) -> str:
        """The layout as buildx and the docker-build provider take it for a named context."""
        return f"oci-layout://{self.path.absolute()}@{self.manifest_digest}"


def tar_header(
    name: str, mode: int, *, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = ""
) -> bytes:
    """Return the header of one tar entry: owner root, time 0.

    PAX holds what the old header cannot: long names, names beyond ASCII, 8 GiB and more.
    """
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size, entry.type, entry.linkname = mode, size, kind, link
    return entry.tobuf(tarfile.PAX_FORMAT)


def tar_padding(size: int) -> bytes:
    """Return what follows an entry's content of `size` bytes."""
    return b"\0" * (-size % tarfile.BLOCKSIZE)


class LayoutStore:
    """An OCI layout that this process alone writes. Made by `open_store`."""

    def __init__(self, path: Path) -> None:
        """Take the folder over; the caller holds the lock."""
        self.path = path
        self.written = 0
        self._blobs = path / "blobs" / "sha256"
        self._ingest = path / "ingest"
        shutil.rmtree(self._ingest, ignore_errors=True)  # a killed writer's; the lock says it is gone
        replace_file(path / "oci-layout", to_json({"imageLayoutVersion": "1.0.0"}))
        self._blobs.mkdir(parents=True, exist_ok=True)

    def blob(self, digest: str) -> Path:
        """Return where a blob is kept."""
        return self._blobs / digest.removeprefix("sha256:")

    def add_layer(self, chunks: Iterable[bytes | memoryview], files: Sequence[str]) -> Layer:
        """Write one uncompressed layer; hashed as it is written, in one pass.

        Not synced to disk, which would double the time: what a power cut loses leaves a shorter file,
        and `Layer.size` is compared before a blob is used again.
        """
        hasher = hashlib.sha256()
        size = 0
        self._ingest.mkdir(exist_ok=True)
        part = self._ingest / "layer"
        with part.open("wb", buffering=0) as target:
            for chunk in chunks:
                hasher.update(chunk)
                size += len(chunk)
                view = memoryview(chunk)
                while view:
                    view = view[target.write(view) :]
        layer = Layer(f"sha256:{hasher.hexdigest()}", size, tuple(files))
        part.chmod(0o644)
        part.replace(self.blob(layer.digest))
        self.written += size
        return layer

    def publish(self, layers: Sequence[Layer], architecture: str, config: dict[str, Any]) -> Layout:
        """Make the image of these layers the layout's only one, and delete what it does not need.

        Args:
            layers: already in the layout, bottom first.
            architecture: OCI name of the processor, such as amd64.
            config: the `config` part of the image's configuration (Env, Cmd and so on).
        """
        configuration = {
            "architecture": architecture,
            "config": config,
            "created": EPOCH,
            "history": [{"created": EPOCH, "created_by": _created_by(layer)} for layer in layers],
            "os": "linux",
            "rootfs": {"diff_ids": [layer.digest for layer in layers], "type": "layers"},
        }
        described = self._add_json(configuration, CONFIG_TYPE)
        manifest = {
            "config": described,
            "layers": [_descriptor(LAYER_TYPE, layer.digest, layer.size) for layer in layers],
            "mediaType": MANIFEST_TYPE,
            "schemaVersion": 2,
        }
        published = self._add_json(manifest, MANIFEST_TYPE)
        index = {"manifests": [published], "mediaType": INDEX_TYPE, "schemaVersion": 2}
        replace_file(self.path / "index.json", to_json(index))
        self._remove_all_but({described["digest"], published["digest"], *(layer.digest for layer in layers)})
        sizes = [described["size"], published["size"], *(layer.size for layer in layers)]
        return Layout(self.path, str(published["digest"]), tuple(layers), sum(sizes), self.written)

    def _add_json(self, document: dict[str, Any], media_type: str) -> dict[str, Any]:
        content = to_json(document)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        replace_file(self.blob(digest), content)
        return _descriptor(media_type, digest, len(content))

    def _remove_all_but(self, digests: set[str]) -> None:
        for path in self._blobs.iterdir():
            if f"sha256:{path.name}" not in digests:
                path.unlink()
        shutil.rmtree(self._ingest, ignore_errors=True)


@contextmanager
def open_store(path: Path) -> Iterator[LayoutStore]:
    """Open a layout for writing; waits while another process writes the same one.

    The lock keeps writers apart, not readers: a build that reads the layout while another model is
    written into it can fail on a blob that is gone, and will succeed when repeated.

    Raises:
        InputError: the folder holds something that is no layout of ours.
    """
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed, by the kernel after a kill
        _refuse_foreign(path)
        path.mkdir(exist_ok=True)
        yield LayoutStore(path)


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


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; leave one alone that already has this content."""
    try:
        if path.read_bytes() == content:
            return
    except OSError:
        pass
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(content)
        part.chmod(0o644)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def to_json(document: object) -> bytes:
    """Return JSON that is the same whenever the document is: its digest is what counts."""
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, Any]:
    return {"digest": digest, "mediaType": media_type, "size": size}


def _created_by(layer: Layer) -> str:
    first, more = layer.files[0], len(layer.files) - 1
    return f"{CREATED_BY}: {first}" + (f" and {more} more" if more else "")


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
        fix="choose another folder, or remove what is there yourself",
    )


def _is_ours(path: Path) -> bool:
    try:
        if not (path / "index.json").exists():
            return (path / "oci-layout").exists()  # a first write that did not end
        described = json.loads((path / "index.json").read_bytes())["manifests"][0]
        for part in ("config", None):
            document = json.loads((path / "blobs" / described["digest"].replace(":", "/")).read_bytes())
            if part:
                described = document[part]
        return bool(document["history"][0]["created_by"].startswith(CREATED_BY))
    except (OSError, ValueError, LookupError, TypeError):
        return False
