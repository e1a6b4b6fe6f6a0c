"""What is done beside the build of an image: bring its layers, send them ahead, attach what belongs to it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import httpx
import pulumi

from components.modelcar_image import Delivery
from components.signature import SignatureSettings
from modelcar import fetching
from modelcar.builder_push import push_by_builder
from modelcar.errors import InputError, refuse
from modelcar.evidence import attach_sbom
from modelcar.progress import amount, lines
from modelcar.push import layers_there, push_layers
from modelcar.registry import Registry, Target
from modelcar.signing import ensure_signed


def bring(delivery: Delivery) -> None:
    """Bring the layers that the registry lacks, and send them to it: BuildKit takes none over then.

    Where the builder fetches, it brings them there, and only the programs beside the weights come here.

    Raises:
        InputError: a file is not what was locked, cannot be had, or the disk is too full.
    """
    image, lock = delivery.image, delivery.lock
    destination = delivery.project / delivery.layout
    there = _layers_there(delivery)
    elsewhere = _by_builder(delivery, there) if delivery.fetching_builder else there or frozenset()
    if not fetching.is_complete(image, destination, elsewhere):
        missing = fetching.missing_bytes(lock, destination, elsewhere)
        pulumi.log.info(f"{lock.name}: fetching {amount(missing)}")
        fetching.fetch(
            lock,
            delivery.base,
            delivery.project,
            destination,
            endpoint=delivery.hub_endpoint,
            progress=lines(f"{lock.name}: fetching", missing, pulumi.log.info),
            elsewhere=elsewhere,
        )
    if there is not None:
        _send_ahead(delivery, destination, elsewhere)


def _layers_there(delivery: Delivery) -> frozenset[str] | None:
    """Return the digests of the layers that the registry has; None where only the builder can reach it."""
    try:
        return layers_there(delivery.image, _target(delivery))
    except httpx.HTTPError as error:
        pulumi.log.info(f"{delivery.lock.name}: layers cannot be sent ahead ({error}), BuildKit sends them")
        return None


def _by_builder(delivery: Delivery, there: frozenset[str] | None) -> frozenset[str]:
    """Let the builder bring what the registry lacks; return the digests of the layers that it has then."""
    lock, builder = delivery.lock, str(delivery.fetching_builder)
    missing = [layer for layer in lock.layers if layer.digest not in (there or ())]
    if missing:
        size = amount(sum(layer.size for layer in missing))
        pulumi.log.info(f"{lock.name}: {builder} fetches {size} and sends them")
        push_by_builder(
            lock,
            missing,
            _target(delivery),
            builder,
            endpoint=delivery.hub_endpoint,
            note=lambda line: pulumi.log.info(f"{lock.name}: {builder}: {line}"),
        )
    wanted = frozenset(layer.digest for layer in lock.layers)
    if there is None:
        return wanted  # the build fails where they are not
    found = layers_there(delivery.image, _target(delivery))
    if lacking := wanted - found:
        raise refuse(
            f"builder {builder}",
            f"made other layers than {lock.name}'s lock says: {', '.join(sorted(lacking)[:3])} did not come",
            allowed="BuildKit 0.31, whose layers are known byte by byte",
            fix="use such a builder, or leave modelcar:fetchOn out",
        )
    return found


def attach(delivery: Delivery) -> None:
    """Attach the bill of materials; where that fails the engine warns, and what was pushed stays.

    Raises:
        InputError: the registry refuses, or cannot be reached.
    """
    with Registry(_target(delivery), write=True) as registry:
        manifest = registry.manifest(delivery.image.digest)
        if manifest:
            attach_sbom(registry, manifest, delivery.lock)


def have_signed(reference: str, signature: SignatureSettings, *, insecure: bool = False) -> None:
    """Verify the image's signature, which `up` does each time; sign it where it has none yet.

    Raises:
        pulumi.RunError: it has none that counts, and cannot be signed here.
    """
    try:
        signed = ensure_signed(reference, signature.trust, signature.signing_key, insecure=insecure)
    except InputError as error:
        raise pulumi.RunError(f"the image is not signed, and nothing was deployed:\n{error}") from None
    if signed:
        pulumi.log.info(f"signed {reference} ({signature.trust.shown})")


def _target(delivery: Delivery) -> Target:
    return Target(delivery.registry, delivery.name, delivery.insecure)


def _send_ahead(delivery: Delivery, layout: Path, there: Collection[str]) -> None:
    """Send the layers that the registry lacks; BuildKit does it where this fails."""
    image, name = delivery.image, delivery.name
    missing = sum(layer.size for layer in image.layers if layer.digest not in there)
    if not missing:
        return
    pulumi.log.info(f"{name}: sending {amount(missing)} of layers")
    progress = lines(f"{name}: sending", image.size, pulumi.log.info)
    try:
        push_layers(image, layout, _target(delivery), progress)
    except (httpx.HTTPError, OSError) as error:
        pulumi.log.info(f"{name}: layers were not sent ahead ({error}), BuildKit sends them")
