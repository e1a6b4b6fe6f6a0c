"""Where the layers of kernels are: beside the layouts on this machine, in the registry, in an archive file.

They cannot be made again from a lock, as weights can be fetched: the layer that was saved is what is kept.
Wherever one comes from, it is compared with the lock before it is used.
"""

from __future__ import annotations

import io
import json
import mmap
import tarfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from modelcar.errors import InputError, Problem, refuse
from modelcar.evidence import EMPTY, EMPTY_TYPE
from modelcar.kernels import Kernels, document, fault_of_layer, read_entries
from modelcar.lock import LAYOUTS, Lock
from modelcar.manifest import LAYER_TYPES, MANIFEST_TYPE, sha256_digest, to_json
from modelcar.oci_layout import LayoutStore, replace_file
from modelcar.registry import Manifest, Registry
from modelcar.tar_members import plain_files

#: Type of what a registry keeps a layer of kernels by: a manifest of its own, so that no cleanup deletes it.
ARTIFACT_TYPE = "application/vnd.modelcar.kernels.v1"
#: Bytes of a whole archive.
MOST_ARCHIVED = 256 * 2**20


def kept_path(project: Path, digest: str) -> Path:
    """Return where a layer of kernels is kept on this machine."""
    return project / LAYOUTS / "kernels" / digest.removeprefix("sha256:")


def keep(project: Path, content: bytes) -> None:
    """Keep a layer on this machine."""
    path = kept_path(project, sha256_digest(content))
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, content)


def kept(project: Path, entry: Kernels) -> bytes | None:
    """Return an entry's layer as it is kept on this machine; None where it is not, or is another one."""
    try:
        content = kept_path(project, entry.digest).read_bytes()
    except OSError:
        return None
    return content if fault_of_layer(entry, content) is None else None


def bring(store: LayoutStore, lock: Lock, project: Path, elsewhere: Collection[str] = ()) -> None:
    """Bring the kernels of a lock into a layout.

    Args:
        store: the layout.
        lock: of the model.
        project: folder that keeps layers.
        elsewhere: digests of layers that are not needed here, as the registry has them.

    Raises:
        InputError: with every entry whose layer is nowhere.
    """
    problems = []
    for entry in missing(store, lock, elsewhere):
        content = kept(project, entry)
        if content is None:
            problems.append(nowhere(lock, entry))
        else:
            store.add(entry.digest, content)
    if problems:
        raise InputError(problems)


def missing(store: LayoutStore, lock: Lock, elsewhere: Collection[str] = ()) -> list[Kernels]:
    """Return the kernels of a lock that are neither in a layout nor elsewhere."""
    return [
        entry
        for entry in lock.kernels
        if entry.digest not in elsewhere and not store.has(entry.digest, entry.size)
    ]


def nowhere(lock: Lock, entry: Kernels) -> Problem:
    """Return the problem with an entry whose layer cannot be found."""
    return Problem(
        f"{lock.name}: kernels {entry.name}",
        f"{entry.digest} is neither on this machine nor in the image's repository",
        "the layer that was saved; kernels cannot be made again from a lock",
        "bring it: python -m operations kernels add FILE (or HOST/PATH that has it) --stack STACK; save new "
        f"ones: make kernels; or do without: python -m operations kernels remove {entry.name} --stack STACK",
    )


# --- a registry -------------------------------------------------------------------------------------


def tag(entry: Kernels) -> str:
    """Return the tag that keeps a layer in its repository; it follows from the content."""
    return f"kernels-{entry.digest.removeprefix('sha256:')[:16]}"


def push(registry: Registry, entry: Kernels, content: bytes) -> str:
    """Send a layer to a repository, under a tag of its own; return the tag.

    The image that is built later in the same repository finds its layer there. A manifest that keeps it
    already stays, also where it has another name for it.

    Raises:
        InputError: the tag names something else.
    """
    layer = {"mediaType": LAYER_TYPES["zstd"], "digest": entry.digest, "size": entry.size}
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "config": {"mediaType": EMPTY_TYPE, "digest": sha256_digest(EMPTY), "size": len(EMPTY)},
        "layers": [layer],
        "annotations": {"org.opencontainers.image.title": entry.name},
    }
    registry.add_blob(EMPTY)
    registry.add_blob(content)
    there = registry.manifest(tag(entry))
    if there is None or entry.digest not in layers_of(there):
        registry.add_tagged(tag(entry), to_json(manifest), MANIFEST_TYPE)
    return tag(entry)


def layers_of(manifest: Manifest) -> list[str]:
    """Return the digests of a manifest's layers; none where it is a list of others."""
    layers = manifest.document.get("layers") or []
    return [str(layer.get("digest")) for layer in layers if isinstance(layer, dict)]


def pull(registry: Registry, entry: Kernels) -> bytes | None:
    """Return an entry's layer out of a repository; None where that has none of this digest.

    Raises:
        InputError: it has another content under this digest.
    """
    manifest = registry.manifest(tag(entry))
    if manifest is None:
        return None
    content = registry.blob(entry.digest)
    if fault := fault_of_layer(entry, content):
        fix = "do not trust this registry; save the kernels again: make kernels"
        raise refuse(f"{entry.name} in the registry", fault, allowed="the layer that the lock names", fix=fix)
    return content


# --- an archive -------------------------------------------------------------------------------------


def write_archive(path: Path, entries: Sequence[tuple[Kernels, bytes]], config: str) -> None:
    """Write entries with their layers to a file, for a machine that the registry is not reached from.

    config: digest of the configuration of the model that they are for (`kernels.basis`).
    """
    content, entries = io.BytesIO(), sorted(entries, key=lambda one: one[0].name)
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        told = {"config": config, "kernels": [document(entry) for entry, _ in entries]}
        listed = json.dumps(told, indent=1).encode()
        for name, data in [("kernels.json", listed), *((f"{e.name}.tar.zst", layer) for e, layer in entries)]:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            archive.addfile(member, io.BytesIO(data))
    replace_file(path, content.getvalue())


def read_archive(path: Path) -> tuple[tuple[tuple[Kernels, bytes], ...], str]:
    """Return the entries of an archive, each with its layer, which is compared with what the archive says.

    And the digest of the configuration of the model that they are for (`kernels.basis`).

    Whether they are the lock's is for the lock to say.

    Raises:
        InputError: it is no such archive, or damaged.
    """
    try:
        files = dict(_members(path))
        told = json.loads(files["kernels.json"])
        entries, wrong = read_entries(told["kernels"])
        if wrong:
            raise ValueError(f"{wrong[0][0]}: {wrong[0][1]}")
        found = tuple((entry, files[f"{entry.name}.tar.zst"]) for entry in entries)
        for entry, content in found:
            if fault := fault_of_layer(entry, content):
                raise ValueError(f"{entry.name}: {fault}")
    except (OSError, ValueError, KeyError, TypeError, tarfile.TarError) as error:
        raise refuse(
            str(path),
            f"cannot be used: {error}",
            allowed="a file that `kernels save --out FILE` wrote",
            fix="copy it again, or save it again",
        ) from None
    return found, str(told.get("config"))


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    size = path.stat().st_size
    if size > MOST_ARCHIVED:
        raise ValueError(f"more than {MOST_ARCHIVED} bytes")
    # Mapped, it gives no more than there is, whatever a header of it claims.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for member, content in plain_files(mapped, size):
            yield member.name, content
