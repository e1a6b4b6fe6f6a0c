"""Copy an image's signatures from a mirror: a signature is of the digest, which is the same everywhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import httpx

from modelcar import signing
from modelcar.errors import InputError
from modelcar.evidence import Artifact, attach
from modelcar.mirrors import name_of, said
from modelcar.registry import Registry, Target
from modelcar.signing import Trust

#: Begins the artifact types of Sigstore's bundles, as cosign 3 attaches them.
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle"
#: Of one image that are looked at: each is a run of cosign.
MOST_BUNDLES = 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def copy_signatures(
    digest: str,
    target: Target,
    mirrors: Sequence[Target],
    trust: Trust,
    *,
    beside: Sequence[Artifact] = (),
    note: Callable[[str], None] | None = None,
) -> str | None:
    """Copy the signatures of the first mirror whose image is signed as it has to be.

    Each of its bundles is verified by itself, and only those that count are copied: what else the mirror
    lists would get into the target with the stack's credentials. The target gets a manifest of its own for
    each; of the mirror's comes the bundle alone.

    Args:
        digest: of the image, in the target already.
        target: its repository.
        mirrors: repositories that may have the same image.
        trust: whose signature counts.
        beside: what is attached together with a copied signature: the list of both may be writable once.
        note: told why a mirror's signature is not taken.

    Returns:
        The mirror's name; None where no mirror has such a signature.

    Raises:
        InputError: there is no cosign, or the target takes no signature.
    """
    note = note or (lambda _: None)
    for mirror in mirrors:
        name = name_of(mirror)
        if fault := signing.verify(f"{name}@{digest}", trust, insecure=mirror.insecure):
            note(f"{name}: {fault}")
            continue
        try:
            with Registry(mirror) as source:
                found = list(_signatures(source, digest, trust))
        except (InputError, httpx.HTTPError) as error:
            note(f"{name}: {said(error)}")
            continue
        if not found:
            note(f"{name}: signed, but not by a bundle that refers to the image (cosign 3)")
            continue
        with Registry(target, write=True) as registry:
            image = registry.manifest(digest)
            if image is None:
                return None
            attach(registry, image, [*found, *beside])
        return name
    return None


def _signatures(source: Registry, digest: str, trust: Trust) -> Iterator[Artifact]:
    """Yield the signatures of an image that count.

    Whoever has the mirror lists there what he likes, beside a signature that counts.
    """
    listed = [
        str(entry.get("digest"))
        for entry in source.referrers(digest)
        if str(entry.get("artifactType", "")).startswith(BUNDLE_TYPE)
    ]
    seen: set[bytes | None] = {None}
    for reference in listed[:MOST_BUNDLES]:
        try:
            content = _bundle(source, reference, digest)
        except InputError:
            continue  # of another digest, or larger than any; the others may count
        if content not in seen and (signature := signing.bundle_of(content or b"", digest, trust)):
            yield signature
        seen.add(content)


def _bundle(source: Registry, reference: str, digest: str) -> bytes | None:
    """Return the one file of an artifact that refers to an image; None where it is another thing."""
    manifest = source.manifest(reference) if _DIGEST.fullmatch(reference) else None
    if manifest is None:
        return None
    subject, layers = manifest.document.get("subject") or {}, manifest.document.get("layers") or []
    if subject.get("digest") != digest or len(layers) != 1:
        return None
    if not str(layers[0].get("mediaType", "")).startswith(BUNDLE_TYPE):
        return None
    return source.blob(layers[0]["digest"])
