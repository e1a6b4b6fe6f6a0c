"""What is inside of an image in a registry, without pulling it: manifest, configuration, attachments."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from modelcar.base import LOCKED_ARCHITECTURES, read_base
from modelcar.errors import refuse
from modelcar.evidence import attached_sbom
from modelcar.image import LOCK_ANNOTATION, modelcar_image
from modelcar.lock import Lock
from modelcar.manifest import CREATED_BY
from modelcar.paths import printable
from modelcar.progress import amount
from modelcar.registry import Manifest, Registry

#: Keys of a configuration that decide on what a container runs (OCI image specification, config).
RUNS = ("Entrypoint", "Cmd", "Env", "User")


@dataclass(frozen=True)
class InspectedLayer:
    """A layer. size: bytes. made_by: what its history says."""

    digest: str
    size: int
    made_by: str


@dataclass(frozen=True)
class Inspection:
    """An image. files: path, bytes and SHA-256, where its own bill of materials is attached.

    runs: what its configuration says of what it runs.
    """

    digest: str
    platform: str
    size: int
    annotations: dict[str, str]
    layers: tuple[InspectedLayer, ...]
    attached: tuple[str, ...]
    files: tuple[tuple[str, int, str], ...]
    runs: dict[str, Any] = field(default_factory=dict)

    @property
    def is_modelcar(self) -> bool:
        """Whether this project made it."""
        return LOCK_ANNOTATION in self.annotations


def inspect(registry: Registry, reference: str) -> tuple[Inspection, Manifest]:
    """Look at an image. Reads no layer.

    Raises:
        InputError: there is none, or it is no image of one platform.
    """
    name = f"{registry.target.registry}/{registry.target.name}"
    manifest = registry.manifest(reference)
    if manifest is None:
        raise refuse(name, f"{reference} is not there", allowed="an image of this repository", fix="check it")
    document = manifest.document
    config = _config(registry, document)
    if config is None:
        raise refuse(
            f"{name}@{manifest.digest}",
            manifest.media_type,
            allowed="the manifest of one image",
            fix="name one of the images that this index lists, by digest",
        )
    listed, told = document["layers"] or [], config.get("history")
    entries = [entry for entry in told if isinstance(entry, dict)] if isinstance(told, list) else []
    history = [str(entry.get("created_by", "")) for entry in entries if not entry.get("empty_layer")]
    history += [""] * (len(listed) - len(history))
    layers = tuple(
        InspectedLayer(layer["digest"], layer.get("size", 0), made_by.removeprefix(f"{CREATED_BY}: "))
        for layer, made_by in zip(listed, history, strict=False)
    )
    attached = [str(entry.get("artifactType", "?")) for entry in registry.referrers(manifest.digest)]
    bill = attached_sbom(registry, manifest.digest) or {}
    found = Inspection(
        manifest.digest,
        f"{config.get('os', '?')}/{config.get('architecture', '?')}",
        sum(layer.size for layer in layers),
        dict(sorted((document.get("annotations") or {}).items())),
        layers,
        tuple(attached),
        tuple(_files(bill)),
        _runs(config.get("config")),
    )
    return found, manifest


def _config(registry: Registry, document: dict[str, Any]) -> dict[str, Any] | None:
    """Return an image's configuration, empty where nothing can be read of it; None where it is no image."""
    if "layers" not in document or not document.get("config"):
        return None
    try:
        found = json.loads(registry.blob(document["config"]["digest"]))
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}


def _runs(config: Any) -> dict[str, Any]:
    """Return what a configuration says of what is run; what is empty is not said."""
    return {key: config[key] for key in RUNS if config.get(key)} if isinstance(config, dict) else {}


def _files(bill: dict[str, Any]) -> list[tuple[str, int, str]]:
    """Return the files of a bill of materials; none where it is not as this project writes it."""
    try:
        return list(_files_of(bill))
    except (LookupError, TypeError, ValueError, AttributeError):
        return []


def _files_of(bill: dict[str, Any]) -> Iterator[tuple[str, int, str]]:
    for component in bill.get("components", []):
        if component.get("type") == "file":
            sizes = [
                item["value"] for item in component.get("properties", []) if item["name"] == "modelcar:size"
            ]
            [first, *_] = component.get("hashes") or [{}]
            yield component["name"], int(sizes[0]) if sizes else 0, first.get("content", "")


def describe(found: Inspection) -> Iterator[str]:
    """Yield the lines for a reader."""
    yield f"digest    {found.digest}"
    yield f"platform  {found.platform}, {amount(found.size)} in {len(found.layers)} layers"
    for name, value in found.annotations.items():
        yield f"{printable(name)}  {printable(value)}"
    if not found.is_modelcar:
        yield "not made by this project: what is under /models cannot be told from here"
    for layer in found.layers:
        yield f"  {layer.digest}  {amount(layer.size):>10}  {printable(layer.made_by)}".rstrip()
    yield f"attached  {', '.join(map(printable, found.attached)) or 'nothing'}"
    for path, size, sha256 in found.files:
        yield f"  {sha256}  {amount(size):>10}  {printable(path)}"


def to_document(found: Inspection) -> dict[str, Any]:
    """Return an inspection as JSON has it."""
    return asdict(found)


def differences(found: Inspection, lock: Lock) -> Iterator[str]:
    """Yield what an image has otherwise than a lock says; nothing where it is the lock's.

    Builders other than BuildKit write manifest and configuration in another way (docs/builders.md): what
    counts is the same.
    """
    system, _, architecture = found.platform.partition("/")
    if system != "linux" or architecture not in LOCKED_ARCHITECTURES:
        yield f"made for {found.platform}, not for linux and {' or '.join(LOCKED_ARCHITECTURES)}"
        return
    predicted = modelcar_image(lock, read_base(architecture))
    files = sorted((file.path, file.size, file.sha256) for file in lock.files)
    if found.files and sorted(found.files) != files:
        yield "the files of its bill of materials are not the lock's"
    if found.digest == predicted.digest:
        return
    said = found.annotations.get(LOCK_ANNOTATION)
    if said != lock.digest:
        yield f"made from the lock {said or 'of nobody'}, not {lock.digest}"
    yield from _other_layers(found, [layer.digest for layer in predicted.layers])
    wanted = _runs(json.loads(predicted.config)["config"])
    for key in RUNS:
        if found.runs.get(key) != wanted.get(key):
            yield printable(f"its {key} is {found.runs.get(key)}, not {wanted.get(key)}")


def _other_layers(found: Inspection, wanted: list[str]) -> Iterator[str]:
    digests = [layer.digest for layer in found.layers]
    if digests[1:] == wanted[1:] and digests[0] != wanted[0]:
        yield f"its programs are not base.lock's: the layer {digests[0]}, not {wanted[0]}"
    elif digests != wanted:
        yield "its layers are not the lock's"
        for digest in sorted(set(digests) - set(wanted)):
            yield f"it has a layer that the lock has not: {digest}"
