"""Images as others build them, layer by layer, pushed to any registry."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from modelcar.manifest import CONFIG_TYPE, MANIFEST_TYPE, sha256_digest
from modelcar.registry import INDEX_TYPE, Registry, Target

#: A file's content, a symbolic link's target, or nothing: a folder.
Content = bytes | str | None

#: Programs as busybox has them: links to one file.
SHELL: dict[str, Content] = {
    "bin/busybox": b"#!",
    **{f"bin/{name}": "busybox" for name in ("sh", "ls", "ln", "sleep")},
}
CONFIG = {"model_type": "qwen2", "max_position_embeddings": 512, "num_attention_heads": 4}
MODEL: dict[str, Content] = {
    "models/": None,
    "models/config.json": json.dumps(CONFIG).encode(),
    "models/model.safetensors": b"w" * 99,
}
#: An adapter's files, as far as anything but a server looks at them.
ADAPTER: dict[str, Content] = {
    "models/": None,
    "models/adapter_config.json": b'{"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": ["q"]}',
    "models/adapter_model.safetensors": b"weights",
}


@dataclass(frozen=True)
class MadeLayer:
    """A layer as it is pushed. created_by: how its builder wrote it down."""

    blob: bytes
    diff_id: str
    media_type: str
    created_by: str = "COPY data/ /models/ # buildkit"


def layer(
    files: Mapping[str, Content],
    *,
    packed: str = "gzip",
    mode: int = 0o644,
    folder_mode: int = 0o755,
    owner: tuple[int, int] = (0, 0),
    created_by: str = "COPY data/ /models/ # buildkit",
) -> MadeLayer:
    """Return a layer of these files, in this order."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(path.rstrip("/"))
            member.uid, member.gid = owner
            member.mode = folder_mode if content is None else 0o755 if path.startswith("bin/") else mode
            if content is None:
                member.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
            else:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    plain = stream.getvalue()
    blob = plain
    if packed == "gzip":
        blob = gzip.compress(plain, mtime=0)
    elif packed == "zstd":
        blob = zstandard.ZstdCompressor().compress(plain)
    suffix = "" if packed == "none" else f"+{packed}"
    return MadeLayer(
        blob, sha256_digest(plain), f"application/vnd.oci.image.layer.v1.tar{suffix}", created_by
    )


def folder_layer(folder: Path, **more: Any) -> MadeLayer:
    """Return the layer of `COPY FOLDER /models`."""
    files: dict[str, Content] = {"models/": None}
    files |= {f"models/{path.name}": path.read_bytes() for path in sorted(folder.iterdir())}
    return layer(files, **more)


@dataclass
class Made:
    """An image, or an index of some. blobs: by digest; manifest: its bytes."""

    manifest: bytes
    media_type: str = MANIFEST_TYPE
    blobs: dict[str, bytes] = field(default_factory=dict)
    parts: list[Made] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """Of the manifest."""
        return sha256_digest(self.manifest)

    def push(self, target: Target, *tags: str) -> str:
        """Send it; return REGISTRY/NAME@DIGEST."""
        for part in self.parts:
            part.push(target)
        with Registry(target, write=True) as registry:
            for blob in self.blobs.values():
                registry.add_blob(blob)
            for reference in (self.digest, *tags):
                registry.add_manifest(reference, self.manifest, self.media_type)
        return f"{target.registry}/{target.name}@{self.digest}"


def image(
    layers: Sequence[MadeLayer],
    run: Mapping[str, Any] | None = None,
    *,
    architecture: str | None = "amd64",
    manifest: Mapping[str, Any] | None = None,
    config_type: str = CONFIG_TYPE,
    **config: Any,
) -> Made:
    """Return an image of layers, bottom first.

    Args:
        run: the `config` part of its configuration: Entrypoint, Env, Volumes.
        manifest: more of its manifest. config: more of its configuration.
    """
    configuration = {
        "os": "linux",
        **({"architecture": architecture} if architecture else {}),
        "config": run or {"Cmd": ["sh"]},
        "history": [{"created_by": one.created_by} for one in layers],
        "rootfs": {"type": "layers", "diff_ids": [one.diff_id for one in layers]},
        **config,
    }
    content = json.dumps(configuration).encode()
    blobs = {sha256_digest(blob): blob for blob in (content, *(one.blob for one in layers))}
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": config_type, "digest": sha256_digest(content), "size": len(content)},
        "layers": [
            {
                "mediaType": one.media_type,
                "digest": f"sha256:{hashlib.sha256(one.blob).hexdigest()}",
                "size": len(one.blob),
            }
            for one in layers
        ],
        **(manifest or {}),
    }
    return Made(json.dumps(document).encode(), blobs=blobs)


def index(*parts: tuple[Made, str | None]) -> Made:
    """Return an index of images, each with the processor that it is said to be for."""
    rows = []
    for part, architecture in parts:
        platform = {"platform": {"os": "linux", "architecture": architecture}} if architecture else {}
        row = {"mediaType": part.media_type, "digest": part.digest, "size": len(part.manifest)}
        rows.append({**row, **platform})
    document = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": rows}
    return Made(json.dumps(document).encode(), INDEX_TYPE, parts=[part for part, _ in parts])


def elsewhere(registry: str, name: str) -> Target:
    """Return somebody else's repository on the host of a registry without TLS."""
    return Target(f"{registry.partition('/')[0]}/others", name, insecure=True)


def base_of(reference: str) -> MadeLayer:
    """Return the layer of a small base image, REGISTRY/NAME@DIGEST, of a registry without TLS."""
    place, _, digest = reference.partition("@")
    registry, _, name = place.rpartition("/")
    with Registry(Target(registry, name, insecure=True)) as client:
        manifest = client.manifest(digest)
        assert manifest
        [one] = manifest.document["layers"]
        config = json.loads(client.blob(manifest.document["config"]["digest"]))
        blob = client.blob(one["digest"])
    return MadeLayer(blob, config["rootfs"]["diff_ids"][0], one["mediaType"], "FROM busybox")
