"""Commands on images in registries: send, look at, compare, sign."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import httpx

from modelcar import fetching, locking, signing
from modelcar.base import add_base_layer, read_base
from modelcar.builder_push import push_by_builder
from modelcar.cli.common import locked, not_fetched, note, note_unused, repository, say, say_origins
from modelcar.errors import refuse
from modelcar.evidence import attach_sbom
from modelcar.image import modelcar_image
from modelcar.inspect_image import describe, differences, inspect, to_document
from modelcar.lock import Lock
from modelcar.manifest import Image
from modelcar.mirrors import mirror_targets, name_of
from modelcar.oci_layout import open_store
from modelcar.progress import amount, bar, working
from modelcar.promote import promote
from modelcar.push import add_image, layers_there, push_layers
from modelcar.push_from import push_from
from modelcar.registry import Registry, Target, in_words, parse
from modelcar.sbom import sbom
from modelcar.signing import SCHEME, Trust


def run_push(options: argparse.Namespace) -> int:
    """Send a model's layers to a registry; 1 where that did not work."""
    note_unused(options)
    lock = locked(options, options.name)
    base = read_base(options.architecture)
    image = modelcar_image(lock, base)
    layout = locking.layout_path(options.project, lock.name)
    target = repository(options)
    mirrors = mirror_targets(options.mirrors, target, insecure=options.from_insecure)
    if options.builder and options.image:
        raise refuse(
            "--image",
            "beside --builder, which sends the weights alone",
            allowed="one of the two",
            fix="leave --builder out; or let `pulumi up` make the image",
        )
    if options.builder:
        return _push_by_builder(options, lock, image, target, mirrors)
    if not mirrors and fetching.missing_bytes(lock, layout):
        raise not_fetched(lock)
    origins: dict[str, str] = {}
    try:
        with bar(f"push {lock.name}", sum(layer.size for layer in image.layers)) as progress:
            if mirrors:
                origins, sent = push_from(lock, base, layout, target, mirrors, progress=progress, note=note)
            else:
                there = layers_there(image, target)
                progress(sum(layer.size for layer in image.layers if layer.digest in there))
                if base.layer.digest not in there:  # it may have been fetched for another processor
                    with open_store(layout) as store:
                        add_base_layer(store, base)
                sent = push_layers(image, layout, target, progress, there)
        if options.image:
            add_image(image, target)
    except httpx.HTTPError as error:
        note(f"error: {in_words(target, error)}")
        return 1
    say_origins(origins)
    copied = sum(layer.size for layer in image.layers if layer.digest in origins)
    from_mirrors = f"{amount(copied)} from mirrors, " if mirrors else ""
    told = f"{from_mirrors}{amount(sent)} sent; the registry has every layer of {image.digest}"
    if options.image:
        note(told)
        say(f"{target.registry}/{target.name}@{image.digest}")
    else:
        say(told)
    return 0


def _push_by_builder(
    options: argparse.Namespace, lock: Lock, image: Image, target: Target, mirrors: Sequence[Target]
) -> int:
    for mirror in mirrors:
        if mirror.host != target.host:
            raise refuse(
                "--from",
                f"{name_of(mirror)}, beside --builder: a copy from another registry passes this machine",
                allowed=f"repositories of {target.host}, which it mounts without a copy",
                fix="leave --builder out, or --from: the builder fetches from the hub",
            )
    try:
        there = layers_there(image, target)
        if mirrors:
            mounted = promote(image.layers, target, mirrors, there=there, mounts_only=True, note=note)
            say_origins(mounted)
            there |= mounted.keys()
        missing = [layer for layer in lock.layers if layer.digest not in there]
        if missing:
            with working(f"push {lock.name} by {options.builder}"):
                push_by_builder(lock, missing, target, options.builder, endpoint=options.endpoint, note=note)
        there = layers_there(image, target)
    except httpx.HTTPError as error:
        note(f"error: {in_words(target, error)}")
        return 1
    if lacking := [layer.digest for layer in lock.layers if layer.digest not in there]:
        note(f"{options.builder} made other layers than the lock says: {', '.join(lacking)} did not come")
        return 1
    size = amount(sum(layer.size for layer in missing))
    say(f"{size} sent by {options.builder}; the registry has every layer of weights of {image.digest}")
    return 0


def run_sbom(options: argparse.Namespace) -> None:
    """Print a model's bill of materials."""
    say(sbom(locked(options, options.name)).decode())


def run_attach(options: argparse.Namespace) -> None:
    """Attach it to the model's image."""
    lock = locked(options, options.name)
    target, reference = parse(options.reference, insecure=options.insecure)
    with Registry(target, write=True) as registry:
        _, manifest = inspect(registry, reference)
        say(f"attached {attach_sbom(registry, manifest, lock)}")


def run_inspect(options: argparse.Namespace) -> None:
    """Tell what is inside of an image."""
    target, reference = parse(options.reference, insecure=options.insecure)
    with Registry(target) as registry:
        found, _ = inspect(registry, reference)
    if options.json:
        say(json.dumps(to_document(found), indent=1))
        return
    for line in describe(found):
        say(line)


def run_verify_image(options: argparse.Namespace) -> int:
    """Compare an image with a lock; 1 where they differ."""
    lock = locked(options, options.name)
    target, reference = parse(options.reference, insecure=options.insecure)
    with Registry(target) as registry:
        found, _ = inspect(registry, reference)
    problems = list(differences(found, lock))
    for problem in problems:
        note(f"{found.digest}: {problem}")
    if not problems:
        if not found.files:
            note("note: no bill of materials of this program is attached (`python -m modelcar attach`)")
        say(f"{found.digest} is what {lock.name}'s lock says")
    return 1 if problems else 0


def _trust(options: argparse.Namespace) -> Trust:
    """Return whose signature counts; a key management service's key is its own public key."""
    key: str | None = getattr(options, "key", None)
    public = options.public_key or (key if key and SCHEME in key else None)
    if bool(public) == bool(options.identity) or bool(options.identity) != bool(options.issuer):
        raise refuse(
            "signature",
            "not one that it is verified by",
            allowed="--public-key KEY, or --identity WHO --issuer URL",
            fix="name one of these",
        )
    return Trust(public, options.identity, options.issuer, options.transparency_log)


def run_sign(options: argparse.Namespace) -> None:
    """Sign an image, unless its signature is there."""
    trust = _trust(options)
    made = signing.ensure_signed(options.reference, trust, options.key, insecure=options.insecure)
    say(f"{'signed' if made else 'signed before'}: {options.reference} ({trust.shown})")


def run_verify_signature(options: argparse.Namespace) -> int:
    """Tell whether an image's signature counts; 1 where it does not."""
    trust = _trust(options)
    fault = signing.verify(options.reference, trust, insecure=options.insecure)
    if fault:
        note(f"{options.reference}: {fault}")
        return 1
    say(f"{options.reference} is signed by {trust.shown}")
    return 0
