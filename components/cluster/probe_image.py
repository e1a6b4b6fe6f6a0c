"""A modelcar of a few bytes, which shows what a cluster does with modelcars. It is also its own server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from modelcar.base import Base, add_base_layer
from modelcar.image import PATH
from modelcar.layer_format import layer_parts
from modelcar.lock import LAYOUTS
from modelcar.manifest import LAYER_TYPES, Image, ImageLayer, make_image, sha256_digest
from modelcar.oci_layout import open_store

if TYPE_CHECKING:
    from modelcar.registry import Target

#: Repository below the stack's registry, and namespace of the test.
NAME = "modelcar-smoke"
#: What the server has to find in the model's folder.
TOKEN = "the weights are here"  # noqa: S105 -- no secret
FILES = {"config.json": b'{"model_type": "probe"}\n', "probe.txt": f"{TOKEN}\n".encode()}


def push_probe(base: Base, project: Path, target: Target) -> str:
    """Push the probe, unless the registry has it, and return its digest. 2 MB, the programs in it.

    Args:
        base: the programs beside the files, for the nodes' processors.
        project: folder that layouts are below.
        target: repository to push to.

    Raises:
        InputError: the registry refuses, or the programs cannot be had.
        httpx.HTTPError: it cannot be reached.
    """
    from modelcar.push import add_image, push_layers  # with clients of registries: only a test pushes

    layout = project / LAYOUTS / f"{NAME}.oci"
    with open_store(layout) as store:
        add_base_layer(store, base)
        content = _layer()
        store.add(sha256_digest(content), content)
    image = probe_image(base)
    push_layers(image, layout, target)
    add_image(image, target)
    return image.digest


def probe_image(base: Base) -> Image:
    """Return the probe: the programs that every modelcar has, and two files."""
    content = _layer()
    plain = LAYER_TYPES["none"]
    layers = [
        ImageLayer(base.layer.digest, base.layer.size, base.layer.digest, plain, "modelcar: bin/busybox"),
        ImageLayer(sha256_digest(content), len(content), sha256_digest(content), plain, "modelcar: probe"),
    ]
    return make_image(layers, base.architecture, {"Env": [PATH]}, {"org.opencontainers.image.title": NAME})


def _layer() -> bytes:
    sizes = [(path, len(content)) for path, content in FILES.items()]
    parts = layer_parts(sizes)
    return b"".join(part if isinstance(part, bytes) else FILES[part[0]] for part in parts)
