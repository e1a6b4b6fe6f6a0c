"""A bill of materials beside a signature that somebody else made: it comes after, and never in its way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.config.signature import SignatureSettings
from components.image import image_delivery
from modelcar import locking
from modelcar.base import read_base
from modelcar.evidence import Artifact, attach, attached_sbom
from modelcar.image import modelcar_image
from modelcar.lock import Lock
from modelcar.manifest import MANIFEST_TYPE
from modelcar.registry import Registry, Target
from modelcar.sbom import SBOM_TYPE, sbom
from modelcar.signing import BUNDLE_TYPE
from modelcar.tiny_model import make_tiny_model
from tests import registry_server

VERIFIES = SignatureSettings.model_validate({"publicKey": "gcpkms://x"})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[registry_server.Registry]:
    """A registry without the API for referrers; every image counts as signed."""
    monkeypatch.setattr(image_delivery, "ensure_signed", lambda *_, **__: False)
    with registry_server.serve() as running:
        running.has_referrers = False
        yield running


def signed(server: registry_server.Registry, folder: Path) -> tuple[Target, str, Lock]:
    """Push the image's manifest, and attach a signature to it."""
    make_tiny_model(folder / "weights")
    description = locking.Description(folder="weights")
    lock = locking.lock_model("tiny", description, locking.resolve(description, folder), folder)[0]
    image = modelcar_image(lock, read_base("amd64"))
    target = Target(f"{server.host}/models", "tiny", insecure=True)
    with Registry(target, write=True) as registry:
        registry.add_manifest(image.digest, image.manifest, MANIFEST_TYPE)
        manifest = registry.manifest(image.digest)
        assert manifest
        attach(registry, manifest, [Artifact(BUNDLE_TYPE, b"{}")])
    return target, image.digest, lock


def kinds(target: Target, digest: str) -> list[Any]:
    with Registry(target) as registry:
        return [entry["artifactType"] for entry in registry.referrers(digest)]


def test_it_is_added_once_and_then_nothing_is_written(
    server: registry_server.Registry, tmp_path: Path
) -> None:
    target, digest, lock = signed(server, tmp_path)
    reference = f"{target.registry}/{target.name}@{digest}"
    image_delivery.have_signed(reference, VERIFIES, lock, insecure=True)
    assert kinds(target, digest) == [BUNDLE_TYPE, SBOM_TYPE]
    server.instead = lambda method, _: (403, {}, b"") if method in {"PUT", "POST", "PATCH"} else None
    image_delivery.have_signed(reference, VERIFIES, lock, insecure=True)


def test_it_is_added_beside_that_of_a_scanner(server: registry_server.Registry, tmp_path: Path) -> None:
    target, digest, lock = signed(server, tmp_path)
    with Registry(target, write=True) as registry:
        manifest = registry.manifest(digest)
        assert manifest
        attach(registry, manifest, [Artifact(SBOM_TYPE, b'{"bomFormat": "CycloneDX", "components": []}')])
    image_delivery.have_signed(f"{target.registry}/{target.name}@{digest}", VERIFIES, lock, insecure=True)
    assert kinds(target, digest) == [BUNDLE_TYPE, SBOM_TYPE, SBOM_TYPE]
    with Registry(target) as registry:
        assert attached_sbom(registry, digest) == json.loads(sbom(lock))


def test_where_the_list_cannot_be_moved_it_is_a_warning(
    server: registry_server.Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned: list[str] = []
    monkeypatch.setattr("pulumi.log.warn", warned.append)
    target, digest, lock = signed(server, tmp_path)
    server.immutable_tags = True
    image_delivery.have_signed(f"{target.registry}/{target.name}@{digest}", VERIFIES, lock, insecure=True)
    assert kinds(target, digest) == [BUNDLE_TYPE], "the signature stays"
    [warning] = warned
    assert warning.startswith("the bill of materials is not attached")
    assert "--no-immutable-tags" in warning
