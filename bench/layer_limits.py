"""How many layers an image may have: `python -m bench.layer_limits`. BuildKit, containerd, overlayfs.

The image is pulled and mounted as for a container, which is what the kernel limits; unpacking mounts nothing.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.machine import BUILDER, EXPECTED, Machine, machine, toolbox
from bench.pull import pull
from bench.ways import PROJECT
from local.failed_command import in_words
from modelcar.layer_format import FILE_MODE, tar_header, tar_padding
from modelcar.manifest import LAYER_TYPES, ImageLayer, make_image, sha256_digest
from modelcar.oci_layout import Layout, open_store

COUNTS = (50, 100, 127, 128, 200, 300, 400, 500, 501, 600)


def layout_of(folder: Path, count: int) -> Layout:
    """Write an image of so many layers, with one small file each."""
    layers = []
    with open_store(folder) as store:
        for number in range(count):
            content = str(number).encode()
            tar = tar_header(f"models/{number}", FILE_MODE, size=len(content)) + content
            tar += tar_padding(len(content)) + bytes(1024)
            digest = sha256_digest(tar)
            store.add(digest, tar)
            layers.append(ImageLayer(digest, len(tar), digest, LAYER_TYPES["none"], f"modelcar: {number}"))
        return store.publish(make_image(layers, "amd64", {"Env": ["PATH=/bin"]}))


def attempt(running: Machine, count: int) -> tuple[str, str]:
    """Return what BuildKit and containerd say to so many layers."""
    layout = layout_of(running.folder / "layouts" / str(count), count)
    try:
        running.run(
            *("buildx", "build", "--quiet", "--provenance=false", "--builder", BUILDER),
            *("--build-arg", "SOURCE_DATE_EPOCH=0", "--build-context", f"weights={layout.context}"),
            *("--output", f"type=image,push=true,registry.insecure=true,name={running.registry}/n:{count}"),
            PROJECT / "modelcar",
        )
    except EXPECTED as error:
        return _last_line(error), ""
    try:
        pull(running, f"{running.registry}/n:{count}", f"containerd-{count}", mount=True)
    except EXPECTED as error:
        return "works", _last_line(error)
    return "works", "works"


def _last_line(error: Exception) -> str:
    return in_words(error).strip().splitlines()[-1][-160:]


def main(counts: Sequence[int]) -> None:
    """Print a table."""
    tools, debian = toolbox()
    print("| layers | BuildKit | containerd, overlayfs |\n|---|---|---|")
    with (
        tempfile.TemporaryDirectory(prefix="modelcar-layers-") as folder,
        machine(Path(folder) / "machine", tools, debian) as running,
    ):
        for count in counts:
            print(f"| {count} | {' | '.join(attempt(running, count))} |", flush=True)


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or COUNTS)
