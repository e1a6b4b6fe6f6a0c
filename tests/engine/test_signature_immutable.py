"""The real cosign, and a registry without the API for referrers whose tags never move."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from components.config.signature import SignatureSettings
from components.image.image_delivery import have_signed
from local.tools import find_tool
from modelcar import locking, signing
from modelcar.base import read_base
from modelcar.evidence import EMPTY, Artifact, attach, attach_sbom, attached_sbom
from modelcar.image import modelcar_image
from modelcar.lock import Lock
from modelcar.manifest import MANIFEST_TYPE
from modelcar.push import push_layers
from modelcar.registry import Registry, Target
from modelcar.signature_copy import copy_signatures
from modelcar.signing import BUNDLE_TYPE, Trust
from modelcar.tiny_model import make_tiny_model
from tests import registry_server
from tests.key_pair import PASSWORD, make_key_pair

pytestmark = pytest.mark.extended


@dataclass(frozen=True)
class Pushed:
    """An image of a locked model in such a registry."""

    target: Target
    digest: str
    lock: Lock
    cosign: Path
    folder: Path

    @property
    def reference(self) -> str:
        return f"{self.target.registry}/{self.target.name}@{self.digest}"

    def by_hand(self, command: str, *options: str) -> subprocess.CompletedProcess[str]:
        plain = ("--allow-http-registry", self.reference)
        return subprocess.run(
            [str(self.cosign), command, *options, *plain],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@pytest.fixture
def pushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pushed]:
    cosign = find_tool("cosign", print)
    monkeypatch.setenv("PATH", f"{cosign.parent}:/usr/bin:/bin")
    monkeypatch.setenv("COSIGN_PASSWORD", PASSWORD)
    make_key_pair(cosign, tmp_path, "cosign")
    make_tiny_model(tmp_path / "weights")
    description = locking.Description(folder="weights", license="Apache-2.0")
    lock = locking.lock_model("tiny", description, locking.resolve(description, tmp_path), tmp_path)[0]
    image = modelcar_image(lock, read_base("amd64"))
    with registry_server.serve() as server:
        server.has_referrers, server.immutable_tags = False, True
        target = Target(f"{server.host}/models", "tiny", insecure=True)
        push_layers(image, locking.layout_path(tmp_path, "tiny"), target)
        with Registry(target, write=True) as registry:
            registry.add_blob(image.config)
            registry.add_manifest("v1", image.manifest, MANIFEST_TYPE)
        yield Pushed(target, image.digest, lock, cosign, tmp_path)


def test_signature_and_bill_of_materials_are_both_found(pushed: Pushed) -> None:
    settings = SignatureSettings.model_validate({"publicKey": "cosign.pub", "key": "cosign.key"})
    settings = settings.found_from(pushed.folder)
    have_signed(pushed.reference, settings, pushed.lock, insecure=True)
    verified = pushed.by_hand("verify", "--key=cosign.pub", "--insecure-ignore-tlog=true")
    assert verified.returncode == 0, verified.stderr
    with Registry(pushed.target) as registry:
        assert attached_sbom(registry, pushed.digest)
    have_signed(pushed.reference, settings, pushed.lock, insecure=True)


def test_cosigns_own_way_is_refused_there_after_a_bill_of_materials(pushed: Pushed) -> None:
    """What this is about: whoever attaches both one after the other ends without a signature."""
    with Registry(pushed.target, write=True) as registry:
        manifest = registry.manifest(pushed.digest)
        assert manifest
        attach_sbom(registry, manifest, pushed.lock)
    with signing._servers(used=False) as servers:
        refused = pushed.by_hand("sign", "--yes", "--key=cosign.key", *servers)
    assert refused.returncode
    assert "is immutable" in refused.stderr
    assert signing.verify(pushed.reference, Trust(f"{pushed.folder}/cosign.pub"), insecure=True)


def test_of_a_mirrors_signatures_those_that_count_are_copied(pushed: Pushed) -> None:
    make_key_pair(pushed.cosign, pushed.folder, "other")
    with Registry(pushed.target, write=True) as mirror:
        image = mirror.manifest(pushed.digest)
        assert image
        made = [
            signing._signature(
                pushed.reference, f"{pushed.folder}/{name}.key", transparency_log=False, insecure=True
            )
            for name in ("other", "cosign")
        ]
        attach(mirror, image, [Artifact(BUNDLE_TYPE, content) for content in made])
    trust = Trust(f"{pushed.folder}/cosign.pub")
    with registry_server.serve() as server:
        server.has_referrers = False
        prod = Target(f"{server.host}/prod", "tiny", insecure=True)
        with Registry(prod, write=True) as registry:
            registry.add_manifest(pushed.digest, image.content, MANIFEST_TYPE)
        assert copy_signatures(pushed.digest, prod, [pushed.target], trust)
        [there] = [content for content in server.blobs.values() if content != EMPTY]
        assert there == made[1]
        reference = f"{prod.registry}/{prod.name}@{pushed.digest}"
        assert signing.verify(reference, trust, insecure=True) is None
        assert signing.verify(reference, Trust(f"{pushed.folder}/other.pub"), insecure=True)
