"""Push a small OCI image layout to the local registry (OCI distribution specification, monolithic upload)."""

from __future__ import annotations

import json
from pathlib import Path

import httpx


def push_layout(layout: Path, registry: str, repository: str) -> str:
    """Push the one image of an OCI layout over plain HTTP and return its digest.

    Raises:
        httpx.HTTPError: the registry refused a request or cannot be reached.
    """
    manifest_digest = str(json.loads((layout / "index.json").read_text())["manifests"][0]["digest"])
    manifest_bytes = _blob(layout, manifest_digest)
    manifest = json.loads(manifest_bytes)
    base = f"http://{registry}/v2/{repository}"
    with httpx.Client(timeout=30) as client:
        for descriptor in [manifest["config"], *manifest["layers"]]:
            digest = descriptor["digest"]
            if client.head(f"{base}/blobs/{digest}").status_code == httpx.codes.OK:
                continue
            started = client.post(f"{base}/blobs/uploads/").raise_for_status()
            location = httpx.URL(base).join(started.headers["Location"])
            target = location.copy_merge_params({"digest": digest})
            headers = {"Content-Type": "application/octet-stream"}
            client.put(target, content=_blob(layout, digest), headers=headers).raise_for_status()
        headers = {"Content-Type": manifest["mediaType"]}
        target = httpx.URL(f"{base}/manifests/{manifest_digest}")
        client.put(target, content=manifest_bytes, headers=headers).raise_for_status()
    return manifest_digest


def _blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()
