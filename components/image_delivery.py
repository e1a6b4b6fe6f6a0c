"""What is done beside the build of an image: bring its layers, send them ahead, attach what belongs to it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import httpx
import pulumi

from components.modelcar_image import Delivery
from components.signature import SignatureSettings
from modelcar import fetching
from modelcar.errors import InputError
from modelcar.evidence import attach_sbom
from modelcar.progress import amount, lines
from modelcar.push import layers_there, push_layers
from modelcar.registry import Registry, Target
from modelcar.signing import ensure_signed


def bring(delivery: Delivery) -> None:
    """Bring the layers that the registry lacks, and send them to it: BuildKit takes none over then.

    Raises:
        InputError: a file is not what was locked, cannot be had, or the disk is too full.
    """
    image, lock = delivery.image, delivery.lock
    destination = delivery.project / delivery.layout
    there: Collection[str] | None
    try:
        there = layers_there(image, _target(delivery))
    except httpx.HTTPError as error:
        pulumi.log.info(f"{lock.name}: layers cannot be sent ahead ({error}), BuildKit sends them")
        there = None
    if not fetching.is_complete(image, destination, there or ()):
        missing = fetching.missing_bytes(lock, destination, there or ())
        pulumi.log.info(f"{lock.name}: fetching {amount(missing)}")
        fetching.fetch(
            lock,
            delivery.base,
            delivery.project,
            destination,
            endpoint=delivery.hub_endpoint,
            progress=lines(f"{lock.name}: fetching", missing, pulumi.log.info),
            elsewhere=there or (),
        )
    if there is not None:
        _send_ahead(delivery, destination, there)


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
