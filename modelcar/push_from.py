"""`push --from`: a model's layers into a registry, from mirrors first and then from this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from modelcar import fetching
from modelcar.base import Base, add_base_layer
from modelcar.errors import refuse
from modelcar.image import modelcar_image
from modelcar.lock import Lock
from modelcar.oci_layout import open_store
from modelcar.packing import Progress
from modelcar.promote import promote
from modelcar.push import layers_there, push_layers
from modelcar.registry import Target


def push_from(
    lock: Lock,
    base: Base,
    layout: Path,
    target: Target,
    mirrors: Sequence[Target],
    *,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> tuple[dict[str, str], int]:
    """Bring every layer that the target lacks; the hub is not asked.

    Args:
        lock: of the model.
        base: the programs beside the weights.
        layout: where the model's layers are, if it was fetched.
        target: repository to bring them to.
        mirrors: repositories to take them from.
        progress: told of bytes as they are sent.
        note: as `promote` takes it.

    Returns:
        How each layer came from a mirror, by digest; and the bytes that were sent from this machine.

    Raises:
        InputError: a layer is neither in a mirror nor on this machine.
        httpx.HTTPError: the target refuses, or cannot be reached.
    """
    image = modelcar_image(lock, base)
    there = layers_there(image, target)
    origins = promote(image.layers, target, mirrors, there=there, progress=progress, note=note)
    done = there | origins.keys()
    if all(layer.digest in done for layer in image.layers):
        return origins, 0
    with open_store(layout) as store:
        if missing := fetching.missing_layers(store, lock, done):
            raise refuse(
                lock.name,
                f"{len(missing)} of its layers are in no mirror, and not fetched: {missing[0].digest} …",
                allowed="layers in the mirrors or on this machine",
                fix=f"python -m modelcar fetch {lock.name}, or name another mirror (--from)",
            )
        if base.layer.digest not in done:
            add_base_layer(store, base)
    return origins, push_layers(image, layout, target, progress, there=done)
