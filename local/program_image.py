"""Images of programs that are here, pushed to the local registry: their makers' own cannot be had here."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from local.oci_push import push_layout
from modelcar.manifest import LAYER_TYPES, ImageLayer, make_image, sha256_digest
from modelcar.oci_layout import open_store

#: Who runs it where a pod does not say: as in distroless images.
NOBODY = "65532:65532"
#: In which ldd says where a library is.
_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")


def push_program(program: Path, registry: str, name: str, architecture: str) -> str:
    """Push an image that holds a program that needs no libraries, as `/NAME`; return its reference by digest.

    Raises:
        httpx.HTTPError: the registry refused it, or cannot be reached.
    """
    return push_files({f"/{name}": program}, registry, name, architecture, {"Entrypoint": [f"/{name}"]})


def push_files(
    files: Mapping[str, Path | str],
    registry: str,
    name: str,
    architecture: str,
    config: Mapping[str, Any],
    repository: str | None = None,
    tag: str | None = None,
) -> str:
    """Push an image of one layer; return its reference by digest.

    Args:
        files: by their places: a file's path here, or what a link says.
        registry: HOST:PORT.
        name: of the image, below `modelcar/` where no repository is said.
        architecture: as OCI calls it.
        config: how it is run, as OCI's image configuration has it.
        repository: where it goes instead.
        tag: that it gets too.

    Raises:
        httpx.HTTPError: the registry refused it, or cannot be reached.
    """
    content = _layer(files)
    digest = sha256_digest(content)
    layer = ImageLayer(digest, len(content), digest, LAYER_TYPES["none"], f"modelcar: {name}")
    image = make_image([layer], architecture, {"User": NOBODY, **config})
    repository = repository or f"modelcar/{name}"
    with tempfile.TemporaryDirectory(prefix="modelcar-image-") as folder:
        with open_store(Path(folder) / "layout") as store:
            store.add(digest, content)
            layout = store.publish(image)
        return f"{registry}/{repository}@{push_layout(layout.path, registry, repository, tag)}"


def _layer(files: Mapping[str, Path | str]) -> bytes:
    """Return a tar of files and links; the same files give the same bytes."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for place, source in sorted(files.items()):
            member = tarfile.TarInfo(place.lstrip("/"))
            if isinstance(source, str):
                member.type, member.linkname = tarfile.SYMTYPE, source
                archive.addfile(member)
            else:
                member.mode, member.size = source.stat().st_mode & 0o777, source.stat().st_size
                with source.open("rb") as file:
                    archive.addfile(member, file)
    return content.getvalue()


def with_libraries(programs: Iterable[Path], folder: str | None = None) -> dict[str, Path | str]:
    """Return programs of this machine with the libraries that they need, by their places.

    Args:
        programs: paths here, which are their places in an image too.
        folder: where libraries are looked for beside the system's own.
    """
    found: dict[str, Path | str] = {}
    for program in programs:
        found[str(program)] = program.resolve()
        environment = {"LD_LIBRARY_PATH": folder} if folder else {}
        told = subprocess.run(
            ["ldd", str(program)], env=environment, capture_output=True, text=True, check=False
        )
        found |= {path: Path(path).resolve() for path in _LIBRARY.findall(told.stdout)}
    return found
