"""What is attached to an image by its digest: its bill of materials (OCI image specification, `subject`)."""

from __future__ import annotations

import json
from typing import Any

from modelcar.lock import Lock
from modelcar.manifest import MANIFEST_TYPE, sha256_digest, to_json
from modelcar.registry import INDEX_TYPE, Manifest, Registry, fallback_tag
from modelcar.sbom import SBOM_TYPE, sbom

EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
EMPTY = b"{}"


def attach_sbom(registry: Registry, image: Manifest, lock: Lock) -> str:
    """Attach a model's bill of materials to its image, unless it is; return the digest of what is attached.

    Where a registry has no API for referrers, the tag that the specification provides for lists them; others'
    entries there (a signature's) stay.

    Args:
        registry: the image's repository, opened to write.
        image: its manifest.
        lock: of the model.
    """
    content = sbom(lock)
    described = {"mediaType": SBOM_TYPE, "digest": sha256_digest(content), "size": len(content)}
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": SBOM_TYPE,
        "config": {"mediaType": EMPTY_TYPE, "digest": sha256_digest(EMPTY), "size": len(EMPTY)},
        "layers": [{**described, "annotations": {"org.opencontainers.image.title": f"{lock.name}.cdx.json"}}],
        "subject": image.descriptor,
    }
    manifest = Manifest(sha256_digest(to_json(document)), MANIFEST_TYPE, to_json(document))
    listed = registry.referrers(image.digest)
    if any(entry.get("digest") == manifest.digest for entry in listed):
        return manifest.digest
    registry.add_blob(EMPTY)
    registry.add_blob(content)
    if not registry.add_manifest(manifest.digest, manifest.content, MANIFEST_TYPE):
        entry = {**manifest.descriptor, "artifactType": SBOM_TYPE}
        index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [*listed, entry]}
        registry.add_manifest(fallback_tag(image.digest), to_json(index), INDEX_TYPE)
    return manifest.digest


def attached_sbom(registry: Registry, digest: str) -> dict[str, Any] | None:
    """Return the bill of materials that is attached to an image; None where there is none."""
    for entry in registry.referrers(digest):
        manifest = registry.manifest(str(entry["digest"])) if _is_sbom(entry) else None
        if manifest:
            content = registry.blob(str(manifest.document["layers"][0]["digest"]))
            found: dict[str, Any] = json.loads(content)
            return found
    return None


def _is_sbom(entry: dict[str, Any]) -> bool:
    return entry.get("artifactType") == SBOM_TYPE
