"""Lock a model: resolve where it comes from, pack its files, and say what the image consists of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
import zstandard

from modelcar import hub, model_config, strict_yaml
from modelcar.base import add_base_layer, read_base
from modelcar.errors import InputError, Problem, refuse
from modelcar.extra import Extra, gather, parse_entries
from modelcar.image import modelcar_image
from modelcar.kernels import Kernels, basis
from modelcar.layer_format import LARGE_FILE, group_files, layer_parts
from modelcar.layouts import LAYOUTS
from modelcar.lock import (
    EXTRA,
    ExtraFile,
    FolderSource,
    HubSource,
    Lock,
    LockedFile,
    layout_path,
    lock_path,
)
from modelcar.lock import MODELS as DESCRIPTIONS
from modelcar.lock import NAME as MODEL_NAME
from modelcar.lock_reader import COMPRESSIONS, check_lock, is_license, read_lock
from modelcar.oci_layout import LayoutStore, open_store, replace_file
from modelcar.packing import Packed, Packer, Progress
from modelcar.paths import printable
from modelcar.safetensors_header import MAX_HEADER
from modelcar.sources import BUFFER, FolderFiles, HubFiles, JoinedFiles, Source
from modelcar.weights import MAX_JSON, WeightFile, check_packed, read_weights

DESCRIPTION_NAME = "model.yaml"
#: Bytes. Above it a layer takes long to send again after a cut, and some registries have limits.
LARGE_LAYER = 10 * 10**9


@dataclass(frozen=True)
class Description:
    """What is to be locked (`model.yaml`): a hub's repository at a revision, or a folder.

    revision: branch, tag or commit. allow, ignore: patterns of paths, as the hub's own client takes them.
    license: overrides what the hub says. compression: none or zstd. layout: one of `layouts.LAYOUTS`.
    extra: files by URL that a hub's model gets beside those of the folder `extra`.
    """

    hub: str | None = None
    revision: str = "main"
    folder: str | None = None
    allow: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    license: str | None = None
    compression: str = "none"
    allow_pickle: bool = False
    layout: str = "auto"
    extra: tuple[Extra, ...] = ()


def description_path(project: Path, name: str) -> Path:
    """Return where it is said what a model is made of."""
    return project / DESCRIPTIONS / name / DESCRIPTION_NAME


def check_name(name: str) -> str:
    """Return the name of a model if a repository in a registry can have it.

    Raises:
        InputError: it cannot.
    """
    if MODEL_NAME.fullmatch(name) and len(name) <= 100:
        return name
    raise refuse(
        "model",
        repr(name),
        allowed="lower-case letters and digits, with single . _ or - between them, at most 100",
        fix="choose another name: it is also the name of the image's repository",
    )


def read_description(path: Path) -> Description:
    """Read model.yaml.

    Raises:
        InputError: with everything that is wrong with it.
    """
    allowed = (
        "hub: OWNER/NAME with revision, or folder: PATH; allow, ignore, license, compression, allowPickle, "
        "layout, extra"
    )
    fix = f"python -m modelcar lock {path.parent.name} --hub OWNER/NAME (or --folder PATH) writes it"
    document = strict_yaml.read(path, allowed, fix)
    problems = []
    if not isinstance(document, dict) or len({"hub", "folder"} & document.keys()) != 1:
        raise refuse(str(path), repr(document)[:200], allowed=allowed, fix=fix)
    kinds = {
        **dict.fromkeys(("hub", "revision", "folder", "license", "compression", "layout"), str),
        **dict.fromkeys(("allow", "ignore"), list),
        "allowPickle": bool,
    }
    extra = []
    for found in parse_entries(path, document.pop("extra", [])):
        if isinstance(found, Extra):
            extra.append(found)
        else:
            problems.append(found)
    for key, value in document.items():
        kind = kinds.get(key)
        texts = not isinstance(value, list) or all(isinstance(item, str) and item for item in value)
        if kind is None or not isinstance(value, kind) or not texts or value == "":
            problems.append(Problem(f"{path}: {key}", repr(value)[:200], allowed, "correct it"))
    for key, choices in (("compression", COMPRESSIONS), ("layout", LAYOUTS)):
        if document.get(key, choices[0]) not in choices:
            allowed = " or ".join(choices)
            problems.append(Problem(f"{path}: {key}", str(document[key]), allowed, "correct it"))
    if "folder" in document and "revision" in document:
        value = repr(document["revision"])[:200]
        problems.append(Problem(f"{path}: revision", value, "with a hub's repository", "take it out"))
    if problems:
        raise InputError(problems)
    return Description(
        hub=document.get("hub"),
        revision=document.get("revision", "main"),
        folder=document.get("folder"),
        allow=tuple(document.get("allow", ())),
        ignore=tuple(document.get("ignore", ())),
        license=document.get("license"),
        compression=document.get("compression", "none"),
        allow_pickle=document.get("allowPickle", False),
        layout=document.get("layout", "auto"),
        extra=tuple(extra),
    )


def document_of(description: Description) -> dict[str, Any]:
    """Return what model.yaml says for a description; defaults are left out."""
    source: dict[str, Any] = (
        {"folder": description.folder}
        if description.folder
        else {"hub": description.hub, "revision": description.revision}
    )
    rest = {
        "allow": list(description.allow),
        "ignore": list(description.ignore),
        "license": description.license,
        "compression": description.compression if description.compression != "none" else None,
        "allowPickle": description.allow_pickle,
        "layout": description.layout if description.layout != "auto" else None,
        "extra": [asdict(file) for file in description.extra],
    }
    return {**source, **{key: value for key, value in rest.items() if value}}


def write_description(project: Path, name: str, description: Description) -> None:
    """Keep what a model is made of, for the next lock."""
    path = description_path(project, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f"# What `python -m modelcar lock {name}` locks; {LOCK_HINT}\n"
    text = yaml.safe_dump(document_of(description), sort_keys=False)
    replace_file(path, (head + text).encode())


LOCK_HINT = "the result is model.lock."


@dataclass(frozen=True)
class Resolved:
    """What a description leads to now.

    skipped: (path, why) of files that are left out. doubts: what a user should know of the others.
    """

    origin: HubSource | FolderSource
    license: str | None
    files: Source
    skipped: tuple[tuple[str, str], ...] = ()
    doubts: tuple[str, ...] = ()
    extra: tuple[ExtraFile, ...] = ()


def resolve(
    description: Description, project: Path, *, endpoint: str | None = None, name: str | None = None
) -> Resolved:
    """Look at the source: which commit, which files. Reads no weights.

    Args:
        description: of what is to be locked.
        project: folder that models and their locks are below.
        endpoint: address of the hub, or of a mirror.
        name: of the model, whose folder `extra` may have more files; None for a model without one.

    Raises:
        InputError: there is none, it cannot be reached, or its files are unfit.
    """
    if not is_license(description.license):
        raise refuse(
            "license",
            repr(description.license),
            allowed="an SPDX identifier, of at most 200 printable characters",
            fix="say another --license",
        )
    extra = gather(
        description.extra,
        lock_path(project, name or "").parent / EXTRA,
        project,
        allow_pickle=description.allow_pickle,
    )
    if extra and description.folder:
        raise refuse(
            EXTRA,
            f"{printable(extra.origins[0].path)}, for a model that is locked from a folder",
            allowed="extra files for a hub's model",
            fix=f"put it into the folder {description.folder}",
        )
    if description.folder:
        weights = read_weights(
            project / description.folder,
            allow=description.allow,
            ignore=description.ignore,
            allow_pickle=description.allow_pickle,
            layout=description.layout,
        )
        origin = FolderSource(description.folder)
        return Resolved(origin, description.license, FolderFiles(weights), weights.skipped, weights.doubts)
    found = hub.resolve(
        str(description.hub),
        description.revision,
        endpoint=endpoint,
        allow=description.allow,
        ignore=description.ignore,
        allow_pickle=description.allow_pickle,
        layout=description.layout,
        extra=[file.path for file in extra.origins] if extra else (),
    )
    files: Source = HubFiles(found.repository, found.revision, found.files, endpoint)
    source = HubSource(found.repository, found.revision)
    license = description.license or found.license
    if extra is None:
        return Resolved(source, license, files, found.skipped, found.doubts)
    files = JoinedFiles(files, extra.files)
    return Resolved(source, license, files, found.skipped + extra.skipped, found.doubts, extra.origins)


def lock_model(
    name: str,
    description: Description,
    resolved: Resolved,
    project: Path,
    *,
    progress: Progress | None = None,
    jobs: int | None = None,
    architecture: str = "amd64",
    large_file: int = LARGE_FILE,
) -> tuple[Lock, int]:
    """Pack a model and write its lock; return the lock and the bytes that had to be written to the layout.

    Raises:
        InputError: the weights are unfit, the disk is too full, or the source changes or breaks off.
    """
    source = resolved.files
    groups = [
        [path for path, _ in group]
        for group in group_files(list(source.sizes.items()), large_file=large_file)
    ]
    with open_store(layout_path(project, name)) as store:
        base = read_base(architecture)
        add_base_layer(store, base)  # first: where it cannot be had, nothing is downloaded for hours
        packer = Packer(store, source, compression=description.compression, progress=progress, jobs=jobs)
        packed = packer.pack(groups)
        _check_contents(store, packed, source.sizes, resolved, description)
        sha256 = {path: digest for made in packed for path, digest in made.sha256.items()}
        files = tuple(LockedFile(path, source.sizes[path], sha256[path]) for path in sorted(source.sizes))
        layers = tuple(made.layer for made in packed)
        path = lock_path(project, name)
        kernels = kept_kernels(path, sha256)
        lock = Lock(
            name,
            resolved.origin,
            resolved.license,
            description.compression,
            files,
            layers,
            resolved.extra,
            kernels,
            path.parent,
        )
        content = check_lock(lock, path)
        # Kernels may be on another machine; `fetch` brings them.
        store.publish(modelcar_image(lock, base), [entry.digest for entry in kernels])
        path.parent.mkdir(parents=True, exist_ok=True)
        model_config.keep(
            path.parent, source.sizes, lambda wanted: _content(store, packed, source.sizes, wanted)
        )
        replace_file(path, content)
        return lock, packer.written


def kept_kernels(path: Path, sha256: Mapping[str, str]) -> tuple[Kernels, ...]:
    """Return the kernels of a former lock that are still good: its model's configuration is the same.

    Args:
        path: of the lock; there may be none yet.
        sha256: of the model's files now.
    """
    try:
        former = read_lock(path)
    except InputError:
        return ()
    same = basis({file.path: file.sha256 for file in former.files}) == basis(sha256)
    return former.kernels if same else ()


def _content(store: LayoutStore, packed: Sequence[Packed], sizes: Mapping[str, int], wanted: str) -> bytes:
    """Return a file's content out of the layer that it was packed into."""
    layer = next(made.layer for made in packed if wanted in made.layer.files)
    before = 0
    for part in layer_parts([(path, sizes[path]) for path in layer.files]):
        if not isinstance(part, bytes) and part[0] == wanted:
            break
        before += len(part) if isinstance(part, bytes) else part[1]
    with store.blob(layer.digest).open("rb") as blob:
        # A layer of zstd differs from its tar file.
        stream = blob if layer.digest == layer.diff_id else zstandard.ZstdDecompressor().stream_reader(blob)
        while before:
            before -= len(stream.read(min(before, BUFFER)))
        content = bytearray()
        while len(content) < sizes[wanted]:
            content += stream.read(sizes[wanted] - len(content))
        return bytes(content)


def _check_contents(
    store: LayoutStore,
    packed: Sequence[Packed],
    sizes: Mapping[str, int],
    resolved: Resolved,
    description: Description,
) -> None:
    """A folder was checked before it was packed; a repository's headers can be read only now."""
    if isinstance(resolved.origin, FolderSource):
        return
    files = {}
    opened = []
    try:
        for number, made in enumerate(packed):
            offset = 0
            blob = store.blob(made.layer.digest)
            parts = list(layer_parts([(path, sizes[path]) for path in made.layer.files]))
            if description.compression == "zstd":
                opened.append(store.ingest / f"check-{number}")
                _decompress_headers(blob, parts, opened[-1])
                blob = opened[-1]
            for part in parts:
                if isinstance(part, bytes):
                    offset += len(part)
                else:
                    files[part[0]] = WeightFile(part[0], blob, part[1], 0, 0, 0, offset)
                    offset += part[1]
        shown = Path(f"{resolved.origin.repository}@{resolved.origin.revision[:12]}")
        check_packed(files, shown, allow_pickle=description.allow_pickle, layout=description.layout)
    finally:
        for path in opened:
            path.unlink(missing_ok=True)


def _decompress_headers(blob: Path, parts: Sequence[bytes | tuple[str, int]], target: Path) -> None:
    """Decompress of a layer what is checked: JSON, and headers of safetensors. The rest becomes holes."""
    with (
        blob.open("rb") as compressed,
        zstandard.ZstdDecompressor().stream_reader(compressed) as stream,
        target.open("wb") as file,
    ):
        for part in parts:
            path, left = ("", len(part)) if isinstance(part, bytes) else part
            wanted = MAX_JSON if path.endswith(".json") else 0
            if path.endswith(".safetensors"):
                length = stream.read(min(left, 8))
                file.write(length)
                left -= len(length)
                wanted = min(int.from_bytes(length, "little"), MAX_HEADER)
            while left:
                data = stream.read(min(left, BUFFER))
                if not data:
                    raise AssertionError(f"{blob} is shorter than its files")
                left -= len(data)
                file.write(data[:wanted])
                file.seek(max(len(data) - wanted, 0), 1)
                wanted = max(wanted - len(data), 0)
        file.truncate()


def warnings(lock: Lock) -> list[str]:
    """Return what a user should know of a model that can be delivered, but not well."""
    found = []
    for layer in lock.layers:
        if layer.size > LARGE_LAYER:
            found.append(
                f"{printable(layer.files[0])} makes a layer of {layer.size / 1e9:.1f} GB. A registry takes "
                f"a blob in one request (Artifact Registry refuses chunked uploads), so a cut connection "
                f"sends all of it again: {layer.size / 1e8 / 60:.0f} minutes at 100 MB/s. Shards of 5 GB are "
                f'better: load it, save_pretrained(FOLDER, max_shard_size="5GB"), and lock that folder.'
            )
    return found


__all__ = [
    "Description",
    "Extra",
    "Resolved",
    "check_name",
    "description_path",
    "document_of",
    "layout_path",
    "lock_model",
    "read_description",
    "resolve",
    "warnings",
    "write_description",
]
