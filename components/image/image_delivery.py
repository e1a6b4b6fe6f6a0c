"""What is done beside the build of an image: bring its layers, send them ahead, attach what belongs to it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import httpx
import pulumi

from components.config.signature import SignatureSettings
from components.image.delivery_plan import Delivery
from components.image.layer_sources import from_mirrors, last_source, mirrors_of, noting, tell_origins
from modelcar import fetching
from modelcar.builder_push import push_by_builder
from modelcar.buildx import require_builder
from modelcar.errors import InputError, refuse
from modelcar.evidence import attach_sbom, attached_sbom, sbom_of
from modelcar.lock import Lock
from modelcar.mirrors import mirror_targets
from modelcar.progress import amount, lines
from modelcar.push import layers_there, push_layers
from modelcar.registry import Registry, Target, in_short, parse
from modelcar.signature_copy import copy_signatures
from modelcar.signing import ensure_signed


def bring(delivery: Delivery) -> None:
    """Bring the layers that the registry lacks, and send them to it: BuildKit takes none over then.

    They come from mirrors first: mounted by the registry, or copied to it without a copy on this machine's
    disk. Then from this machine's layers, and from the hub at last. Where the builder fetches, it brings
    them there, and only the programs beside the weights come here.

    Raises:
        InputError: the builder cannot take them, a file is not what was locked or cannot be had, or the disk
            is too full.
    """
    require_builder(delivery.builder)
    image, lock = delivery.image, delivery.lock
    destination = delivery.project / delivery.layout
    there = _layers_there(delivery)
    origins = dict.fromkeys(there or (), "in the registry before")
    mirrors: Sequence[Target] = ()
    if delivery.mirrors:
        copied = _from_mirrors(delivery, there)
        if copied is not None and there is not None:
            origins |= copied
            there |= copied.keys()
        elif not delivery.fetching_builder:
            mirrors = mirrors_of(delivery)
    if delivery.fetching_builder:
        elsewhere = _by_builder(delivery, there)
        origins |= dict.fromkeys(elsewhere - origins.keys(), f"fetched by {delivery.fetching_builder}")
    else:
        elsewhere = there or frozenset()
    if not fetching.is_complete(image, destination, elsewhere):
        missing = fetching.missing_layers_at(lock, destination, elsewhere)
        size = sum(layer.size for layer in missing)
        pulumi.log.info(f"{lock.name}: fetching {amount(size)}")
        fetched = fetching.fetch(
            lock,
            delivery.base,
            delivery.project,
            destination,
            endpoint=delivery.hub_endpoint,
            progress=lines(f"{lock.name}: fetching", size, pulumi.log.info),
            elsewhere=elsewhere,
            mirrors=mirrors,
            note=noting(lock.name),
        )
        from_last = {layer.digest: f"from {last_source(lock)}" for layer in missing}
        origins |= {**from_last, **fetched.origins}
    if there is not None:
        _send_ahead(delivery, destination, elsewhere)
    if delivery.mirrors:
        here = {layer.digest: "from this machine" for layer in image.layers}
        tell_origins(delivery, here | origins)


def _from_mirrors(delivery: Delivery, there: frozenset[str] | None) -> dict[str, str] | None:
    """Let mirrors bring what the registry lacks; None where it takes none from here."""
    name = delivery.lock.name
    if there is None:
        if delivery.fetching_builder:
            pulumi.log.warn(f"{name}: mirrors are not used: only the builder reaches the registry")
        return None
    try:
        return from_mirrors(delivery, there)
    except httpx.HTTPError as error:
        why = in_short(_target(delivery), error)
        pulumi.log.info(f"{name}: the registry took not all layers of mirrors ({why})")
        return None


def _layers_there(delivery: Delivery) -> frozenset[str] | None:
    """Return the digests of the layers that the registry has; None where only the builder can reach it."""
    try:
        return layers_there(delivery.image, _target(delivery))
    except httpx.HTTPError as error:
        why = in_short(_target(delivery), error)
        pulumi.log.info(f"{delivery.lock.name}: layers cannot be sent ahead ({why}), BuildKit sends them")
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


def have_signed(
    reference: str,
    signature: SignatureSettings,
    lock: Lock | None = None,
    *,
    insecure: bool = False,
    mirrors: Sequence[str] = (),
    mirrors_insecure: bool = False,
) -> None:
    """Verify the image's signature, which `up` does each time.

    Where it has none yet, one that counts is copied from a mirror with the same image; else it is signed.

    Args:
        reference: REGISTRY/NAME@sha256:… of the image.
        signature: whose signature counts, and who signs.
        insecure: the registry speaks plain HTTP.
        mirrors, mirrors_insecure: as ModelcarImageArgs has them.
        lock: whose bill of materials is attached with the signature; None: nothing else is. Together, since
            the list of both may be written only once (`modelcar.evidence.attach`). Where somebody else
            signed, it comes after the signature, which matters more.

    Raises:
        pulumi.RunError: it has none that counts, and cannot be signed here.
    """
    beside = [sbom_of(lock)] if lock else []

    def copy() -> bool:
        target, digest = parse(reference, insecure=insecure)
        usable = mirror_targets(mirrors, target, insecure=mirrors_insecure)
        name = copy_signatures(digest, target, usable, signature.trust, beside=beside, note=pulumi.log.info)
        if name:
            pulumi.log.info(f"{reference}: its signature is copied from {name} ({signature.trust.shown})")
        return name is not None

    try:
        signed = ensure_signed(
            reference,
            signature.trust,
            signature.signing_key,
            beside=beside,
            insecure=insecure,
            bring=copy if mirrors else None,
        )
    except InputError as error:
        raise pulumi.RunError(f"the image is not signed, and nothing was deployed:\n{error}") from None
    if signed:
        pulumi.log.info(f"signed {reference} ({signature.trust.shown})")
    elif lock:
        _attach_after(reference, lock, insecure=insecure)


def _attach_after(reference: str, lock: Lock, *, insecure: bool) -> None:
    target, digest = parse(reference, insecure=insecure)
    try:
        with Registry(target) as registry:  # whoever only verifies may have no right to write
            if attached_sbom(registry, digest):
                return
        with Registry(target, write=True) as registry:
            manifest = registry.manifest(digest)
            if manifest:
                attach_sbom(registry, manifest, lock)
    except InputError as error:
        pulumi.log.warn(f"the bill of materials is not attached:\n{error}")


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
        why = in_short(_target(delivery), error) if isinstance(error, httpx.HTTPError) else str(error)
        pulumi.log.info(f"{name}: layers were not sent ahead ({why}), BuildKit sends them")
