"""An image's configuration and manifest, byte for byte as BuildKit writes them, without building anything.

The pushed image is `FROM` an OCI layout and nothing else, so BuildKit passes layers and configuration on and
writes a manifest of its own. What it writes is Go's `encoding/json` of the OCI image specification's types
(BuildKit 0.31, exporter/containerimage/writer.go); written the same way here, the layout's digest *is* the
pushed digest, and it is known before the build.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: OCI image specification 1.1.
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPES = {
    "none": "application/vnd.oci.image.layer.v1.tar",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
}
EPOCH = "1970-01-01T00:00:00Z"

#: Begins the history of every image made here; by it a layout is known to be ours.
CREATED_BY = "modelcar"
_GO_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


@dataclass(frozen=True)
class ImageLayer:
    """One layer of an image. size: bytes of the blob. created_by: for the history."""

    digest: str
    size: int
    diff_id: str
    media_type: str
    created_by: str


@dataclass(frozen=True)
class Image:
    """An image as bytes, but for its layers. digest: of the manifest."""

    config: bytes
    manifest: bytes
    layers: tuple[ImageLayer, ...]
    annotations: Mapping[str, str]

    @property
    def config_digest(self) -> str:
        """Digest of the configuration."""
        return sha256_digest(self.config)

    @property
    def digest(self) -> str:
        """Digest of the manifest, by which the image is pulled."""
        return sha256_digest(self.manifest)

    @property
    def size(self) -> int:
        """Bytes of layers, configuration and manifest."""
        return len(self.config) + len(self.manifest) + sum(layer.size for layer in self.layers)


def make_image(
    layers: Sequence[ImageLayer],
    architecture: str,
    config: Mapping[str, Any],
    annotations: Mapping[str, str] | None = None,
) -> Image:
    """Return an image of these layers, bottom first.

    Args:
        layers: of the image.
        architecture: OCI name of the processor, such as amd64.
        config: the `config` part of the configuration, its keys in the order of the specification's type.
        annotations: of the manifest.
    """
    annotations = dict(sorted((annotations or {}).items()))
    configuration = {
        "architecture": architecture,
        "config": config,
        "created": EPOCH,
        "history": [{"created": EPOCH, "created_by": layer.created_by} for layer in layers],
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
    }
    config_bytes = _go_json(configuration)
    described = {
        "mediaType": CONFIG_TYPE,
        "digest": sha256_digest(config_bytes),
        "size": len(config_bytes),
    }
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": described,
        "layers": [
            {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size} for layer in layers
        ],
    }
    if annotations:
        manifest["annotations"] = annotations
    return Image(config_bytes, _go_json(manifest, indent=2), tuple(layers), annotations)


def sha256_digest(content: bytes) -> str:
    """Return the digest of a blob."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _go_json(document: Mapping[str, Any], indent: int | None = None) -> bytes:
    separators = (",", ": ") if indent else (",", ":")
    text = json.dumps(document, ensure_ascii=False, indent=indent, separators=separators)
    return text.translate(_GO_ESCAPES).encode()


def to_json(document: object) -> bytes:
    """Return JSON that is the same whenever the document is: its digest is what counts."""
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
