"""Where a model's layers come from: told in a preview, and done by `up` before anything is fetched."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import pulumi

from components.config.settings import Settings
from components.image.delivery_plan import Delivery
from modelcar.lock import LAYOUTS, HubSource, Lock
from modelcar.manifest import Image, ImageLayer
from modelcar.mirrors import look, mirror_targets, name_of
from modelcar.paths import printable
from modelcar.progress import amount, lines
from modelcar.promote import promote
from modelcar.registry import Target

#: Seconds that a preview waits for an answer of a mirror.
PREVIEW_TIMEOUT = 3.0
#: Lines of a table of layers.
MOST_LAYERS = 120


def mirrors_of(delivery: Delivery) -> tuple[Target, ...]:
    """Return the repositories that layers may be taken from, without the one that they go to."""
    target = Target(delivery.registry, delivery.name, delivery.insecure)
    return mirror_targets(delivery.mirrors, target, insecure=delivery.mirrors_insecure)


def from_mirrors(delivery: Delivery, there: Collection[str]) -> dict[str, str]:
    """Bring what the registry lacks and mirrors have; return how each layer came, by digest.

    Args:
        delivery: of one model.
        there: digests of the layers that the registry has.

    Raises:
        httpx.HTTPError: the registry refuses, or cannot be reached.
    """
    name, target = delivery.lock.name, Target(delivery.registry, delivery.name, delivery.insecure)
    mirrors = mirrors_of(delivery)
    for text in delivery.mirrors:
        if text == name_of(target):
            pulumi.log.info(f"{name}: mirror {text} is the registry's own repository, nothing to copy")
    missing = [layer for layer in delivery.image.layers if layer.digest not in there]
    size = sum(layer.size for layer in missing)
    if not missing or not mirrors:
        return {}
    pulumi.log.info(f"{name}: looking for {amount(size)} in {', '.join(map(name_of, mirrors))}")
    return promote(
        missing,
        target,
        mirrors,
        mounts_only=delivery.fetching_builder is not None,
        progress=lines(f"{name}: copying from mirrors", size, pulumi.log.info),
        note=noting(name),
    )


def noting(name: str) -> Callable[[str], None]:
    """Return what tells of a mirror that does not do what it should, for a model."""
    return lambda line: pulumi.log.warn(f"{name}: {line}")


def tell_origins(delivery: Delivery, origins: Mapping[str, str]) -> None:
    """Log where each layer of an image came from.

    Args:
        delivery: of one model.
        origins: by digest.
    """
    shown = [
        f"  {layer.digest[:19]}  {amount(layer.size):>10}  {origins.get(layer.digest, '?')}: {files}"
        for layer, files in zip(delivery.image.layers, _files(delivery), strict=True)
    ]
    more = [f"  … and {len(shown) - MOST_LAYERS} more"] if len(shown) > MOST_LAYERS else []
    pulumi.log.info("\n".join([f"{delivery.lock.name}: its layers", *shown[:MOST_LAYERS], *more]))


def _files(delivery: Delivery) -> Iterator[str]:
    known: dict[str, Sequence[str]] = {layer.digest: layer.files for layer in delivery.lock.layers}
    known |= {entry.digest: [f"kernels {entry.name}"] for entry in delivery.lock.kernels}
    for layer in delivery.image.layers:
        first, *others = known.get(layer.digest, delivery.base.layer.files)
        yield printable(first) + (f" and {len(others)} more" if others else "")


def last_source(lock: Lock) -> str:
    """Return where layers come from that nothing else has."""
    if isinstance(lock.source, HubSource):
        return f"the hub ({lock.source.repository})"
    return f"the folder {lock.source.path}"


def planned(settings: Settings, lock: Lock, image: Image, there: Collection[str], project: Path) -> list[str]:
    """Return where what is to be pushed would come from, in lines for a preview. Reads no layer.

    Args:
        settings: of the model.
        lock: of the model.
        image: that is to be pushed.
        there: digests of the layers that the registry has.
        project: the program's folder.
    """
    target = Target(settings.registry, settings.repository, settings.registry_insecure)
    mirrors = mirror_targets(settings.mirrors, target, insecure=settings.mirrors_insecure)
    missing = [layer for layer in image.layers if layer.digest not in there]
    if not mirrors or not missing:
        return []
    plan = look(missing, mirrors, PREVIEW_TIMEOUT)
    shares: dict[str, list[ImageLayer]] = {}
    for layer in missing:
        having = plan.having[layer.digest]
        source = _shown(having, target) if having else _without_mirror(layer, lock, project)
        shares.setdefault(source, []).append(layer)
    told = [f"{settings.key}: {_sum(layers)} {source}" for source, layers in shares.items()]
    told += [f"{settings.key}: mirror {name} cannot be used: it {why}" for name, why in plan.faults.items()]
    return told


def _shown(having: Sequence[Target], target: Target) -> str:
    mountable = next((mirror for mirror in having if mirror.host == target.host), None)
    if mountable:
        return f"mounted from {name_of(mountable)}, or copied"
    return f"copied from {name_of(having[0])}"


def _without_mirror(layer: ImageLayer, lock: Lock, project: Path) -> str:
    known = {own.digest for own in lock.layers}
    blob = project / LAYOUTS / f"{lock.name}.oci" / "blobs" / layer.digest.replace(":", "/")
    try:
        here = layer.digest not in known or blob.stat().st_size == layer.size
    except OSError:
        here = False
    return "from this machine" if here else f"from {last_source(lock)}"


def _sum(layers: Sequence[ImageLayer]) -> str:
    size = amount(sum(layer.size for layer in layers))
    return f"{size} in {len(layers)} layer{'s' * (len(layers) != 1)}"
