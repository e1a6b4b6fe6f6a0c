"""What the tests on the real cluster share."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import httpx

from modelcar.layout import write_layout
from modelcar.tiny_model import make_tiny_model
from modelcar.weights import read_weights
from tests.conftest import PROJECT, Platform

#: Waits for the model, as the program's own server does, and serves its files.
STUB_SERVER = [
    "sh",
    "-c",
    "until [ -r /mnt/models/ ] || [ ! -L /mnt/models ]; do sleep 0.2; done; exec httpd -f -p 8080 -h /mnt",
]


def push_tiny(platform: Platform, folder: Path, seed: int = 0) -> str:
    """Build and push a modelcar of the tiny model with buildx alone; return its storage URI."""
    weights = read_weights(make_tiny_model(folder / "weights", seed=seed))
    layout = write_layout(weights, folder / "layout")
    registry = str(platform.settings["registry"])
    export = "type=image,push=true,compression=uncompressed,oci-mediatypes=true,registry.insecure=true"
    metadata = folder / "metadata.json"
    subprocess.run(
        [
            *("buildx", "build", "--quiet", "--provenance=false", "--builder", platform.settings["builder"]),
            *("--build-context", f"weights={layout.context}"),
            *("--build-context", f"base={platform.settings['baseImage']}"),
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
