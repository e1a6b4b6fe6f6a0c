"""One program out of an image of a registry, by the OCI distribution API; nothing is run or mounted."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from local.downloads import members
from local.downloads.catalogue import Image
from local.downloads.web import MOST, DownloadError, Pace, Web
from modelcar.errors import UnansweredError, refuse
from modelcar.progress import bar
from modelcar.registry import Registry, Target, parse


def take(image: Image, version: str, arch: str, target: Path, web: Web) -> tuple[str, bool]:
    """Write a program out of an image; return the digest of what its reference names, and if it is pinned.

    Args:
        image: which.
        version: of it.
        arch: the processor, as OCI calls it.
        target: to be written; what is left there on an error is not whole.
        web: the way to the registry.

    Raises:
        DownloadError: the registry cannot be reached, or has no such image or program.
        InputError: what it sends has another digest than was asked for.
        OSError: it cannot be written.
    """
    where, tag = parse(image.reference.format(version=version))
    if web.base:
        where = Target(urlsplit(web.base).netloc, where.name, insecure=True)
    pinned = image.pinned.get(version, "")
    try:
        with Registry(where, timeout=web.stall, anonymous=True) as registry:
            top = registry.manifest(pinned or tag)
            if top is None:
                raise DownloadError(f"{where.host} has no {where.name}:{tag}")
            chosen = _of_platform(top.document, arch)
            manifest = registry.manifest(chosen) if chosen else top
            layers = (manifest.document if manifest else {}).get("layers", [])
            # What is added last hides what was there before.
            for layer in reversed(layers):
                if _found_in(registry, layer, image.member, target, web.stall):
                    return top.digest, bool(pinned)
    except UnansweredError as error:
        raise DownloadError(f"{error.problems[0].key}: {error.problems[0].value}") from None
    raise DownloadError(f"{where.name}:{tag} has no program {image.member} for linux/{arch}")


def _of_platform(document: dict[str, Any], arch: str) -> str:
    """Return the digest of an index's manifest for a processor; nothing where this is no index."""
    for entry in document.get("manifests", []):
        platform = entry.get("platform", {})
        if platform.get("os") == "linux" and platform.get("architecture") == arch:
            return str(entry["digest"])
    return ""


def _found_in(registry: Registry, layer: dict[str, Any], member: str, target: Path, stall: float) -> bool:
    """Download a layer beside the target, hold it to its digest, and look for the program in it."""
    digest, host = str(layer["digest"]), registry.target.host
    packed = target.with_name(f"{target.name}.layer")
    found, pace, came = hashlib.sha256(), Pace(stall, host), 0
    label, told = f"   downloading a layer of {registry.target.repository}", layer.get("size")
    with registry.stream(digest) as pieces, packed.open("wb") as file, bar(label, told) as count:
        for piece in pieces:
            count(len(piece))
            came += len(piece)
            if came > MOST:
                raise DownloadError(f"{host} sends more than {MOST // 2**20} MiB")
            pace.add(len(piece))
            found.update(piece)
            file.write(piece)
    size = int(layer.get("size", came))
    if came < size:
        raise DownloadError(f"{host} cut the connection after {came} of {size} bytes")
    if f"sha256:{found.hexdigest()}" != digest:
        raise refuse(
            f"{host}/{registry.target.repository}: a layer",
            f"sha256:{found.hexdigest()}",
            allowed=f"{digest}, as the image's manifest says",
            fix="run the command again; where it stays so, MODELCAR_TOOLS=source builds from pinned sources",
        )
    with packed.open("rb") as file:
        return members.take_from(file, member, target)
