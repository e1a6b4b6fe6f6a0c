"""Where KServe mounts a model in its pod, and what lies below."""

from __future__ import annotations

import posixpath

#: The same for every server.
MODEL_PATH = "/mnt/models"
#: Where a whole image is mounted as a volume (placement imageVolume): its folder `models` is MODEL_PATH then,
#: by no `subPath`, which containerd 2.1 ignores.
IMAGE_PATH = "/mnt"
#: … and the image of each adapter that has one, by its place in the list.
ADAPTERS_PATH = "/adapters"


def adapter_mount(number: int) -> str:
    """Return where the image of an adapter is mounted. number: its place in the list."""
    return f"{ADAPTERS_PATH}/{number}"


def adapter_path(number: int) -> str:
    """Return the folder of an adapter that is an image of its own. number: its place in the list."""
    return f"{adapter_mount(number)}/models"


def inside(path: str) -> str | None:
    """Return a path's place in the model, `""` for the model itself; None where it lies elsewhere."""
    plain = posixpath.normpath(path) if path.startswith("/") else path
    if plain == MODEL_PATH:
        return ""
    return plain.removeprefix(f"{MODEL_PATH}/") if plain.startswith(f"{MODEL_PATH}/") else None
