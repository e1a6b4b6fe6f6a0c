"""How long a node takes to pull: containerd, the same weights as plain layers and gzipped."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench import ways
from bench.machine import Machine, disk_usage, empty_node, machine
from local.page_cache import settle
from local.random_weights import write_model
from modelcar import locking

if TYPE_CHECKING:
    from bench.__main__ import Bench

#: Ways whose images are pulled; what `oras` pushes is no image.
PULLED = ("layout context", "buildx default", "buildx zstd")


def measure(bench: Bench, gib: float, files: int = 16) -> None:
    """Pull and unpack each image with an empty containerd."""
    bench.say(f"── node pull by containerd, {gib} GiB")
    common = {"gib": gib, "files": files}
    with bench.attempt("node pull", common):
        weights = write_model(bench.folder / "weights", round(gib * 2**30), files)
        project = bench.folder / "project"
        description = locking.Description(folder=str(weights))
        lock, _ = locking.lock_model("m", description, locking.resolve(description, project), project)
        for name in PULLED:
            with (
                bench.attempt(f"node pull: {name}", common),
                machine(bench.folder / "machine", bench.tools, bench.debian) as running,
            ):
                ways.WAYS[name](ways.Task(running, weights, "m", lock, project, bench.peers))
                seconds, disk = pull(running, f"{running.registry}/m:latest")
                bench.note(way="node pull", state=name, seconds=seconds, disk=disk, **common)


def pull(
    running: Machine, reference: str, name: str = "containerd", *, mount: bool = False
) -> tuple[float, int]:
    """Pull with an empty containerd; return seconds, and bytes of blobs and unpacked layers.

    mount: also mount the image, as for a container.
    """
    folder = running.folder / name
    with empty_node(folder) as ctr:
        settle()
        started = time.monotonic()
        running.run(*ctr, "images", "pull", "--plain-http", reference)
        seconds = time.monotonic() - started
        if mount:
            target = folder / "mounted"
            target.mkdir()
            running.run(*ctr, "images", "mount", reference, target)
            running.run(*ctr, "images", "unmount", target)
        return seconds, disk_usage(folder / "root")
