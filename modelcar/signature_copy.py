"""Copy an image's signatures from a mirror: a signature is of the digest, which is the same everywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import httpx

from modelcar import signing
from modelcar.errors import InputError
from modelcar.evidence import Artifact, Attachment, attach_all, attachments
from modelcar.mirrors import name_of, said
from modelcar.registry import Registry, Target
from modelcar.signing import Trust

#: Begins the artifact types of Sigstore's bundles, as cosign 3 attaches them.
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle"


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

    What does not count there is not copied: nobody would ask for it here.

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
                bundles = _bundles(source, digest)
        except (InputError, httpx.HTTPError) as error:
            note(f"{name}: {said(error)}")
            continue
        if not bundles:
            note(f"{name}: signed, but not by a bundle that refers to the image (cosign 3)")
            continue
        with Registry(target, write=True) as registry:
            image = registry.manifest(digest)
            attach_all(registry, digest, [*bundles, *(attachments(image, beside) if image else [])])
        return name
    return None


def _bundles(source: Registry, digest: str) -> list[Attachment]:
    """Return the signatures of an image, with all that they are made of."""
    found = []
    for entry in source.referrers(digest):
        if not str(entry.get("artifactType", "")).startswith(BUNDLE_TYPE):
            continue
        manifest = source.manifest(str(entry.get("digest")))
        if manifest:
            parts = [manifest.document.get("config") or {}, *(manifest.document.get("layers") or [])]
            blobs = tuple(source.blob(part["digest"]) for part in parts if part)
            described = {**manifest.descriptor, "artifactType": entry["artifactType"]}
            found.append(Attachment(manifest, described, blobs))
    return found
