"""What a platform takes: memory, disk, processes, and what its registry holds that nothing refers to."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.campaign.sameness import left_running
from tests.campaign.world import SUBJECT, World, until

MIB = 2**20


@dataclass(frozen=True)
class Measures:
    """One look at the platform.

    memory: resident MiB of the platform's own processes, pods left out, by service.
    processes: the platform's and its pods'. runs: left by Pulumi runs that are over.
    state: bytes of the stack's state. backend: bytes of all that Pulumi's backend keeps of it.
    disk: bytes below each of the platform's folders, the registry's left out.
    images: bytes of the registry that a tag leads to. garbage: bytes that none does.
    """

    memory: dict[str, float]
    processes: int
    runs: int
    state: int
    backend: int
    disk: dict[str, int]
    images: int
    garbage: int


def measure(world: World) -> Measures:
    """Look once; takes a second, and waits for the end of what a run that is over has started."""
    until(lambda: not left_running(world), 10, 0.1)
    images, garbage = registry_bytes(world.instance.state / "registry")
    state = world.instance.state
    folders = ("etcd", "buildkit", "containerd", "logs", "kubelet", "project/modelcar/data")
    return Measures(
        memory=memory_by_service(world),
        processes=count_processes(world),
        runs=len(left_running(world)),
        state=world.state_file(SUBJECT).stat().st_size,
        backend=_bytes(world.backend),
        disk={name: _bytes(state / name) for name in folders if (state / name).exists()},
        images=images,
        garbage=garbage,
    )


def memory_by_service(world: World) -> dict[str, float]:
    """Return the resident MiB of each of the platform's own processes."""
    return {
        service: round(process.memory_info().rss / MIB, 1)
        for service in sorted(path.stem for path in world.instance.pids.glob("*.pid"))
        if (process := world.process(service))
    }


def count_processes(world: World) -> int:
    """Return how many processes the platform and its pods have."""
    supervisor = world.process("supervisor")
    return len(supervisor.children(recursive=True)) if supervisor else 0


def _bytes(folder: Path) -> int:
    """Return what a folder's files take on disk; pods' mounts are counted where they come from."""
    found = 0
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in {"rootfs", "pods"}]
        for name in files:
            with suppress(OSError):  # it went just now
                found += (Path(root) / name).lstat().st_blocks * 512
    return found


def registry_bytes(folder: Path) -> tuple[int, int]:
    """Return how many bytes of a registry's store a tag leads to, and how many none does.

    What no tag leads to: blobs of uploads that never became an image, and images that lost their tag.

    Args:
        folder: `rootdirectory` of the registry's filesystem driver (distribution, version 2).
    """
    root = folder / "docker/registry/v2"
    sizes = {path.parent.name: path.stat().st_size for path in root.glob("blobs/sha256/*/*/data")}
    wanted: set[str] = set()
    pending = [
        path.read_text().removeprefix("sha256:")
        for path in root.glob("repositories/**/_manifests/tags/*/current/link")
    ]
    while pending:
        digest = pending.pop()
        if digest in wanted or digest not in sizes:
            continue
        wanted.add(digest)
        pending += _referred(root / "blobs/sha256" / digest[:2] / digest / "data")
    kept = sum(sizes[digest] for digest in wanted)
    uploads = sum(path.stat().st_size for path in root.glob("repositories/**/_uploads/*/data"))
    return kept, sum(sizes.values()) - kept + uploads


def _referred(blob: Path) -> list[str]:
    """Return the digests that a manifest or an index names; nothing for any other blob."""
    if blob.stat().st_size > MIB:
        return []
    try:
        document = json.loads(blob.read_bytes())
    except ValueError:
        return []
    if not isinstance(document, dict) or "schemaVersion" not in document:
        return []
    entries = [*document.get("layers", []), *document.get("manifests", []), document.get("config")]
    return [str(entry["digest"]).removeprefix("sha256:") for entry in entries if entry]
