"""What the tests on the real cluster share."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import httpx

from modelcar import locking
from modelcar.base import read_base
from modelcar.image import modelcar_image
from modelcar.oci_layout import context_of
from modelcar.tiny_model import make_tiny_model
from tests.conftest import PROJECT, Platform

#: Waits for the model, as the program's own server does, and serves its files.
STUB_SERVER = [
    "sh",
    "-c",
    "until [ -r /mnt/models/ ] || [ ! -L /mnt/models ]; do sleep 0.2; done; exec httpd -f -p 8080 -h /mnt",
]


def push_tiny(platform: Platform, folder: Path, seed: int = 0) -> str:
    """Build and push a modelcar of the tiny model with buildx alone; return its storage URI."""
    name = f"probe-{folder.name.replace('_', '-')}"
    make_tiny_model(folder / "weights", seed=seed)
    description = locking.Description(folder="weights")
    lock, _ = locking.lock_model(name, description, locking.resolve(description, folder), folder)
    image = modelcar_image(lock, read_base("amd64"))
    registry = str(platform.settings["registry"])
    export = "type=image,push=true,compression=uncompressed,oci-mediatypes=true,registry.insecure=true"
    metadata = folder / "metadata.json"
    subprocess.run(
        [
            *("buildx", "build", "--quiet", "--provenance=false", "--builder", platform.settings["builder"]),
            *("--build-arg", "SOURCE_DATE_EPOCH=0"),
            *("--build-context", f"weights={context_of(locking.layout_path(folder, name), image.digest)}"),
            *("--output", f"{export},name={registry}/probe:{folder.name}"),
            *("--metadata-file", str(metadata), str(PROJECT / "modelcar")),
        ],
        env={**platform.checkout.environment, **platform.shell},
        check=True,
        capture_output=True,
    )
    digest = json.loads(metadata.read_text())["containerimage.digest"]
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    host, path = registry.split("/", 1)
    httpx.get(f"http://{host}/v2/{path}/probe/manifests/{digest}", headers=accept).raise_for_status()
    return f"oci://{registry}/probe@{digest}"
