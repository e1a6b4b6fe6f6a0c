"""An image of one program, pushed to the local registry: how others ship it, which cannot be had here."""

from __future__ import annotations

import tempfile
from pathlib import Path

from local.oci_push import push_layout
from modelcar.layer_format import END_OF_TAR, tar_header, tar_padding
from modelcar.manifest import LAYER_TYPES, ImageLayer, make_image, sha256_digest
from modelcar.oci_layout import open_store

#: Who runs it where a pod does not say: as in distroless images.
NOBODY = "65532:65532"


def push_program(program: Path, registry: str, name: str, architecture: str) -> str:
    """Push an image that holds a program that needs no libraries, as `/NAME`; return its reference by digest.

    Raises:
        httpx.HTTPError: the registry refused it, or cannot be reached.
    """
    size = program.stat().st_size
    content = b"".join(
        [tar_header(name, 0o755, size=size), program.read_bytes(), tar_padding(size), END_OF_TAR]
    )
    digest = sha256_digest(content)
    layer = ImageLayer(digest, len(content), digest, LAYER_TYPES["none"], f"modelcar: {name}")
    image = make_image([layer], architecture, {"User": NOBODY, "Entrypoint": [f"/{name}"]})
    repository = f"modelcar/{name}"
    with tempfile.TemporaryDirectory(prefix="modelcar-image-") as folder:
        with open_store(Path(folder) / "layout") as store:
            store.add(digest, content)
            layout = store.publish(image)
        return f"{registry}/{repository}@{push_layout(layout.path, registry, repository)}"
