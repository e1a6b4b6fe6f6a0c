"""The image of a model: what it is made of, and so its digest, before anything is built."""

from __future__ import annotations

from collections.abc import Sequence

from modelcar import kernels as compiled
from modelcar.base import Base
from modelcar.lock import HubSource, Lock
from modelcar.manifest import CREATED_BY, LAYER_TYPES, Image, ImageLayer, make_image

#: Annotation with the digest of the lock that an image was made from.
LOCK_ANNOTATION = "io.modelcar.lock.digest"

#: The runtime's own default has no /bin in some versions; said here so that `sh` is always found.
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def modelcar_image(lock: Lock, base: Base) -> Image:
    """Return the image of a model: the base's programs, the weights, compiled kernels, as its lock says.

    The base comes first, as it changes most rarely, and kernels last: another server brings others. There is
    no entry point: KServe passes what it runs as container args, which an entry point would swallow.
    """
    programs = ImageLayer(
        base.layer.digest, base.layer.size, base.layer.digest, LAYER_TYPES["none"], _by(base.layer.files)
    )
    weights = [
        ImageLayer(layer.digest, layer.size, layer.diff_id, LAYER_TYPES[lock.compression], _by(layer.files))
        for layer in lock.layers
    ]
    kernels = [
        ImageLayer(
            entry.digest,
            entry.size,
            entry.diff_id,
            LAYER_TYPES["zstd"],
            f"{CREATED_BY}: {compiled.FOLDER}/{entry.name}",
        )
        for entry in lock.kernels
    ]
    annotations = annotations_of(lock)
    config = {"Env": [PATH], "Cmd": ["ls", "-lR", "/models"], "Labels": annotations}
    return make_image([programs, *weights, *kernels], base.architecture, config, annotations)


def annotations_of(lock: Lock) -> dict[str, str]:
    """Return the annotations of a model's image (OCI image specification, annotations).

    They are its labels too, which tools that build on the image pass on.
    """
    found = {LOCK_ANNOTATION: lock.digest, "org.opencontainers.image.title": lock.name}
    if lock.license:
        found["org.opencontainers.image.licenses"] = lock.license
    if isinstance(lock.source, HubSource):
        found["org.opencontainers.image.source"] = f"https://huggingface.co/{lock.source.repository}"
        found["org.opencontainers.image.revision"] = lock.source.revision
    return dict(sorted(found.items()))


def _by(files: Sequence[str]) -> str:
    first, more = files[0], len(files) - 1
    return f"{CREATED_BY}: {first}" + (f" and {more} more" if more else "")
