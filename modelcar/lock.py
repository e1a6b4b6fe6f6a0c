"""The lock of a model: which files it consists of, by digest, and the image layers that they make.

A lock is written by `python -m modelcar lock`, committed, and reviewed like code. All that an image's digest
depends on is in it (and in `base.lock`), so whoever has it knows the digest without having the weights.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from modelcar import kernels as compiled
from modelcar.choosing import left_out
from modelcar.manifest import to_json

#: Folder of the models' descriptions below the project, one folder each.
MODELS = Path("modelcar/models")
LOCK_NAME = "model.lock"
#: Folder beside a lock, of files that a hub's model gets (`modelcar/extra.py`).
EXTRA = "extra"
#: Folder of the layouts below the project; each is as large as its model.
LAYOUTS = Path("modelcar/data")

#: What `version` has to be; raised when the meaning of a field changes.
VERSION = 1
#: As a repository's name in a registry, which a model's name becomes (OCI distribution specification).
NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")


@dataclass(frozen=True)
class LockedFile:
    """A file of the model. size: bytes. sha256: 64 hexadecimal digits."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class ExtraFile:
    """A file that is not the hub's. url: where it is from; None for the folder `extra` beside the lock."""

    path: str
    url: str | None


@dataclass(frozen=True)
class LockedLayer:
    """A layer of the image.

    digest, size (bytes): of the blob as it is pushed. diff_id: digest of the layer without compression.
    files: paths of the files in it.
    """

    digest: str
    size: int
    diff_id: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class HubSource:
    """A repository of a model hub, at a commit (40 hexadecimal digits)."""

    repository: str
    revision: str


@dataclass(frozen=True)
class FolderSource:
    """A folder; its path is relative to the project, or absolute."""

    path: str


@dataclass(frozen=True)
class Lock:
    """What one model consists of. license: SPDX's identifier or the hub's; None where nobody said.

    extra: the files that are not the hub's. kernels: compiled for it, each a layer after those of the files.
    folder: that the lock was read from, where it was read.
    """

    name: str
    source: HubSource | FolderSource
    license: str | None
    compression: str
    files: tuple[LockedFile, ...]
    layers: tuple[LockedLayer, ...]
    extra: tuple[ExtraFile, ...] = ()
    kernels: tuple[compiled.Kernels, ...] = ()
    folder: Path | None = field(default=None, compare=False, repr=False)

    @property
    def total_size(self) -> int:
        """Bytes of the files."""
        return sum(file.size for file in self.files)

    @property
    def layers_size(self) -> int:
        """Bytes of the layers as they are pushed."""
        return sum(layer.size for layer in self.all_layers)

    @property
    def all_layers(self) -> tuple[LockedLayer, ...]:
        """Layers of the files, then those of compiled kernels."""
        kernels = (
            LockedLayer(entry.digest, entry.size, entry.diff_id, (f"{compiled.FOLDER}/{entry.name}",))
            for entry in self.kernels
        )
        return (*self.layers, *kernels)

    @cached_property
    def digest(self) -> str:
        """Digest of the lock's content; comments and the order of keys do not change it."""
        return f"sha256:{hashlib.sha256(to_json(document_of(self))).hexdigest()}"


def lock_path(project: Path, name: str) -> Path:
    """Return where a model's lock is kept."""
    return project / MODELS / name / LOCK_NAME


def layout_path(project: Path, name: str) -> Path:
    """Return where a model's layout is kept."""
    return project / LAYOUTS / f"{name}.oci"


def extra_folder(lock: Lock, project: Path) -> Path:
    """Return the folder beside a lock with files that the hub's model gets."""
    return (lock.folder or project / MODELS / lock.name) / EXTRA


def changed_files(lock: Lock, project: Path) -> tuple[str, ...]:
    """Return files of a locked folder, or of `extra`, that are not what was locked, by name and size alone.

    Empty where the folder is not on this machine.
    """
    files, changed = lock.files, []
    if isinstance(lock.source, FolderSource):
        folder = project / lock.source.path
    else:
        folder = extra_folder(lock, project)
        own = {file.path for file in lock.extra if file.url is None}
        files = tuple(file for file in lock.files if file.path in own)
        there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        changed = sorted(there - own - left_out(there).keys())
    if not folder.is_dir():
        return ()
    for file in files:
        try:
            same = (folder / file.path).stat().st_size == file.size
        except OSError:
            same = False
        if not same:
            changed.append(file.path)
    return tuple(changed)


def write_lock(lock: Lock) -> bytes:
    """Return the lock as it is kept in a file: YAML, one line of a diff for each thing that changes."""
    head = (
        f"# Written by `python -m modelcar lock {lock.name}`: not to be edited, to be committed.\n"
        "# The image's digest follows from it: `python -m modelcar digest` tells, and every preview.\n"
    )
    body = yaml.safe_dump(document_of(lock), sort_keys=False, allow_unicode=True, width=1000)
    return (head + body).encode()


def document_of(lock: Lock) -> dict[str, Any]:
    """Return a lock as its file has it."""
    source: dict[str, Any]
    if isinstance(lock.source, HubSource):
        source = {"hub": lock.source.repository, "revision": lock.source.revision}
    else:
        source = {"folder": lock.source.path}
    layers = []
    for layer in lock.layers:
        packed = {} if layer.diff_id == layer.digest else {"diffId": layer.diff_id}
        layers.append({"digest": layer.digest, "size": layer.size, **packed, "files": list(layer.files)})
    return {
        "version": VERSION,
        "source": source,
        "license": lock.license,
        "compression": lock.compression,
        "totalSize": lock.total_size,
        "files": [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in lock.files],
        "layers": layers,
        **({"extra": [_extra_document(file) for file in lock.extra]} if lock.extra else {}),
        **({"kernels": [compiled.document(entry) for entry in lock.kernels]} if lock.kernels else {}),
    }


def _extra_document(file: ExtraFile) -> dict[str, str]:
    return {"path": file.path, **({"url": file.url} if file.url else {})}
