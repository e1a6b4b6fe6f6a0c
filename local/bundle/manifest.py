"""The manifest of a bundle: what it is for, what is in it, and how each part is told to be whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from modelcar.errors import InputError, refuse

FORMAT = 1
FILE = "manifest.json"

#: Components, in the order in which they are unpacked.
PYTHON, TOOLS, SERVER = "python", "tools", "server"


@dataclass(frozen=True)
class Part:
    """One file of the bundle. `size` in bytes."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Archive:
    """A `.tar.xz` within the parts: where it begins and how long it is, and what comes out of it.

    offset, size: in bytes, counted over all parts as if they were one file.
    files: number of files in it.
    unpacked: bytes that they take on a disk.
    """

    offset: int
    size: int
    sha256: str
    files: int
    unpacked: int


@dataclass(frozen=True)
class Component:
    """What is unpacked to one place.

    fingerprint: what it was made from; the checkout that uses it has to have the same.
    present: packages of a Python environment that were left out, because the target has them (NAME==VERSION).
    """

    name: str
    fingerprint: dict[str, str]
    archives: tuple[Archive, ...]
    present: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Return the bytes that its archives take."""
        return sum(archive.size for archive in self.archives)

    @property
    def files(self) -> int:
        """Return the number of its files."""
        return sum(archive.files for archive in self.archives)

    @property
    def unpacked(self) -> int:
        """Return the bytes that it takes on a disk."""
        return sum(archive.unpacked for archive in self.archives)

    @property
    def digest(self) -> str:
        """Return what tells its content from any other, in hexadecimal."""
        text = json.dumps([self.fingerprint, [archive.sha256 for archive in self.archives], self.present])
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Manifest:
    """A whole bundle.

    version, commit: of the project that made it.
    machine: as `uname -m` calls it.
    glibc: the oldest version that everything in it runs with.
    python: MAJOR.MINOR that its packages are for.
    server: the kind of model server in it; empty where there is none.
    server_folder: name of its environment's folder in the cache.
    """

    version: str
    commit: str
    machine: str
    glibc: str
    python: str
    server: str
    server_folder: str
    parts: tuple[Part, ...]
    components: tuple[Component, ...]
    format: int = field(default=FORMAT)

    def component(self, name: str) -> Component | None:
        """Return a component by its name."""
        return next((found for found in self.components if found.name == name), None)


def write(manifest: Manifest, folder: Path) -> None:
    """Write the manifest, as the last file of a bundle: what is interrupted before has none."""
    document = asdict(manifest)
    for entry, component in zip(document["components"], manifest.components, strict=True):
        entry["size"], entry["files"] = component.size, component.files
    part = folder / f"{FILE}.part"
    part.write_text(json.dumps(document, indent=1) + "\n")
    part.replace(folder / FILE)


def read(folder: Path) -> Manifest:
    """Read the manifest of a bundle.

    Raises:
        InputError: there is no such folder, it holds no bundle, or one of another format.
    """
    path = folder / FILE
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        found = f"no {FILE} in it" if folder.is_dir() else "there is no such folder"
        raise refuse(
            f"BUNDLE={folder}",
            found,
            allowed=f"a folder that `make bundle` wrote: {FILE} and its parts",
            fix="copy the whole folder, and give its path: make up BUNDLE=FOLDER",
        ) from None
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        told = document.get("format") if isinstance(document, dict) else None
        raise refuse(
            str(path),
            f"format {told!r}",
            allowed=f"format {FORMAT}, which this version of the project reads",
            fix="make the bundle with this version of the project: make bundle",
        )
    try:
        return _manifest(document)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error


def _damaged(path: Path, reason: str) -> InputError:
    return refuse(
        str(path),
        f"cannot be read ({reason})",
        allowed="the file as `make bundle` wrote it",
        fix="copy it again",
    )


def _manifest(document: Mapping[str, Any]) -> Manifest:
    manifest = Manifest(
        version=str(document["version"]),
        commit=str(document["commit"]),
        machine=str(document["machine"]),
        glibc=str(document["glibc"]),
        python=str(document["python"]),
        server=str(document["server"]),
        server_folder=_name(document["server_folder"]) if document["server"] else "",
        parts=tuple(
            Part(_name(entry["name"]), int(entry["size"]), str(entry["sha256"]))
            for entry in document["parts"]
        ),
        components=tuple(_component(entry) for entry in document["components"]),
    )
    total = sum(part.size for part in manifest.parts)
    for component in manifest.components:
        for archive in component.archives:
            if not 0 <= archive.offset <= archive.offset + archive.size <= total:
                raise ValueError(f"an archive of {component.name} lies outside of the parts")
    return manifest


def _name(text: object) -> str:
    name = str(text)
    if name != Path(name).name or name in ("", ".", ".."):
        raise ValueError(f"{name!r} is no file name")
    return name


def _component(entry: Mapping[str, Any]) -> Component:
    numbers = ("offset", "size", "files", "unpacked")
    return Component(
        name=str(entry["name"]),
        fingerprint={str(key): str(value) for key, value in dict(entry["fingerprint"]).items()},
        archives=tuple(
            Archive(sha256=str(told["sha256"]), **{key: int(told[key]) for key in numbers})
            for told in entry["archives"]
        ),
        present=tuple(str(name) for name in entry["present"]),
    )
