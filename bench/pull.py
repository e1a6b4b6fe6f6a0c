"""How long a node takes to pull: containerd, the same weights as plain layers and gzipped."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

from bench import ways
from bench.machine import Machine, await_true, disk_usage, machine
from local.page_cache import settle
from local.random_weights import write_model
from local.tools import find_tool
from modelcar import locking

if TYPE_CHECKING:
    from bench.__main__ import Bench

#: Ways whose images are pulled; what `oras` pushes is no image.
PULLED = ("layout context", "buildx default", "buildx zstd")


def measure(bench: Bench, gib: float, files: int = 16) -> None:
    """Pull and unpack each image with an empty containerd."""
    bench.say(f"── node pull by containerd, {gib} GiB")
    weights = write_model(bench.folder / "weights", round(gib * 2**30), files)
    project = bench.folder / "project"
    description = locking.Description(folder=str(weights))
    lock, _ = locking.lock_model("m", description, locking.resolve(description, project), project)
    for name in PULLED:
        with machine(bench.folder / "machine", bench.tools, bench.debian) as running:
            ways.WAYS[name](ways.Task(running, weights, "m", lock, project, bench.peers))
            seconds, disk = pull(running, f"{running.registry}/m:latest")
            bench.note(way="node pull", state=name, seconds=seconds, disk=disk, gib=gib, files=files)


def pull(
    running: Machine, reference: str, name: str = "containerd", *, mount: bool = False
) -> tuple[float, int]:
    """Pull with an empty containerd; return seconds, and bytes of blobs and unpacked layers.

    mount: also mount the image, as for a container.
    """
    folder = running.folder / name
    folder.mkdir()
    config = folder / "config.toml"
    config.write_text('version = 3\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
    command = [str(find_tool("containerd", print)), "--config", str(config), "--address", f"{folder}/sock"]
    command += ["--root", f"{folder}/root", "--state", f"{folder}/state", "--log-level", "error"]
    ctr = [str(find_tool("ctr", print)), "--address", f"{folder}/sock"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            await_true(
                lambda: subprocess.run([*ctr, "version"], capture_output=True, check=False).returncode == 0
            )
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
        finally:
            process.terminate()
            process.wait(30)
