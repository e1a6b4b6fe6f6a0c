"""What is attached to an image by its digest: its bill of materials (OCI image specification, `subject`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from modelcar.errors import refuse
from modelcar.lock import Lock
from modelcar.manifest import MANIFEST_TYPE, sha256_digest, to_json
from modelcar.registry import INDEX_TYPE, MAX_BLOB, Manifest, Registry, fallback_tag
from modelcar.sbom import SBOM_TYPE, is_own, sbom

EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
EMPTY = b"{}"
#: How registries refuse to move a tag: Artifact Registry, ECR (400), Harbor (412), others.
_KEPT = frozenset({400, 403, 405, 409, 412})


@dataclass(frozen=True)
class Artifact:
    """What is attached to an image: one file. type: of the file, and of the artifact that holds it.

    name: of the file, for who saves it. annotations: of the artifact's manifest.
    """

    type: str
    content: bytes
    name: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    def manifest(self, image: Manifest) -> Manifest:
        """Return the manifest by which it refers to an image."""
        layer: dict[str, Any] = {
            "mediaType": self.type,
            "digest": sha256_digest(self.content),
            "size": len(self.content),
        }
        if self.name:
            layer["annotations"] = {"org.opencontainers.image.title": self.name}
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": self.type,
            "config": {"mediaType": EMPTY_TYPE, "digest": sha256_digest(EMPTY), "size": len(EMPTY)},
            "layers": [layer],
            "subject": image.descriptor,
        }
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        return Manifest(sha256_digest(to_json(document)), MANIFEST_TYPE, to_json(document))


@dataclass(frozen=True)
class Attachment:
    """A manifest that refers to an image. entry: how it is listed; blobs: what it is made of."""

    manifest: Manifest
    entry: Mapping[str, Any]
    blobs: tuple[bytes, ...]


def attach(registry: Registry, image: Manifest, artifacts: Sequence[Artifact]) -> list[str]:
    """Attach artifacts to an image, unless they are, as `attach_all`; return the digests of their manifests.

    Args:
        registry: the image's repository, opened to write.
        image: its manifest.
        artifacts: all that there is to attach now.

    Raises:
        InputError: the tag lists other artifacts, and cannot be moved.
    """
    found = attachments(image, artifacts)
    attach_all(registry, image.digest, found)
    return [one.manifest.digest for one in found]


def attachments(image: Manifest, artifacts: Sequence[Artifact]) -> list[Attachment]:
    """Return artifacts as they are attached to an image."""
    found = []
    for artifact in artifacts:
        manifest = artifact.manifest(image)
        entry = {**manifest.descriptor, "artifactType": artifact.type}
        if artifact.annotations:
            entry["annotations"] = dict(artifact.annotations)
        found.append(Attachment(manifest, entry, (EMPTY, artifact.content)))
    return found


def attach_all(registry: Registry, digest: str, found: Sequence[Attachment]) -> None:
    """Attach what is not attached yet.

    Where a registry has no API for referrers, the tag that the specification provides for lists them; others'
    entries there stay. Some registries let no tag move (Artifact Registry with immutable tags, which this
    program's own repository has), so the tag is written once for all of them: cosign, Kyverno and oras read
    that list, and take from it what they know.

    Args:
        registry: the image's repository, opened to write.
        digest: of the image.
        found: all that there is to attach now.

    Raises:
        InputError: the tag lists other artifacts, and cannot be moved.
    """
    listed = registry.referrers(digest)
    there = {entry.get("digest") for entry in listed}
    entries = []
    for one in found:
        if one.manifest.digest in there:
            continue
        for blob in one.blobs:
            registry.add_blob(blob)
        if not registry.add_manifest(one.manifest.digest, one.manifest.content, one.manifest.media_type):
            entries.append(dict(one.entry))
    if entries:
        index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [*listed, *entries]}
        _write_list(registry, digest, to_json(index), moves=bool(listed))


def _write_list(registry: Registry, digest: str, index: bytes, *, moves: bool) -> None:
    tag = fallback_tag(digest)
    try:
        registry.add_manifest(tag, index, INDEX_TYPE)
    except httpx.HTTPStatusError as error:
        if not moves or error.response.status_code not in _KEPT:
            raise
        target = registry.target
        raise refuse(
            f"{target.registry}/{target.name}:{tag}",
            f"the registry answers {error.response.status_code}: the tag lists what is attached to the "
            "image, and is not moved to a list with more",
            allowed="a registry with the API for referrers, or one that lets this tag move",
            fix="let tags move for once (`gcloud artifacts repositories update REPOSITORY "
            "--location=LOCATION --no-immutable-tags`), run this again, and set it back "
            "(docs/supply-chain.md)",
        ) from None


def sbom_of(lock: Lock) -> Artifact:
    """Return a model's bill of materials, as it is attached."""
    return Artifact(SBOM_TYPE, sbom(lock), f"{lock.name}.cdx.json")


def attach_sbom(registry: Registry, image: Manifest, lock: Lock) -> str:
    """Attach a model's bill of materials to its image, as `attach`; return the digest of what is attached."""
    return attach(registry, image, [sbom_of(lock)])[0]


def attached_sbom(registry: Registry, digest: str) -> dict[str, Any] | None:
    """Return the bill of materials that this project attached to an image; None where there is none.

    Scanners and CI attach CycloneDX of their own under the same type. What they say of the image is no
    statement about the lock's files.
    """
    for entry in registry.referrers(digest):
        manifest = registry.manifest(str(entry.get("digest"))) if _is_sbom(entry) else None
        layers = (manifest.document.get("layers") or []) if manifest else []
        if len(layers) != 1 or layers[0].get("size", 0) > MAX_BLOB:
            continue
        try:
            found = json.loads(registry.blob(str(layers[0]["digest"])))
        except (ValueError, RecursionError):  # CycloneDX may be XML, and somebody's may be anything
            continue
        if is_own(found):
            return dict(found)
    return None


def _is_sbom(entry: dict[str, Any]) -> bool:
    return entry.get("artifactType") == SBOM_TYPE
