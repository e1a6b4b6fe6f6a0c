"""KServe's controller out of its image, by a registry on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local import tool_build
from local.downloads import catalogue, web
from local.downloads.catalogue import Image
from local.tool_list import TOOLS
from modelcar.errors import InputError
from modelcar.manifest import MANIFEST_TYPE, sha256_digest
from modelcar.registry import INDEX_TYPE
from tests import registry_server
from tests.makers_server import elf, tar_gz

KSERVE = next(tool for tool in TOOLS if tool.name == "kserve-manager")
TAG = f"v{KSERVE.version}"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[registry_server.Registry]:
    monkeypatch.setenv("MODELCAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MODELCAR_TOOLS", "release")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with registry_server.serve() as running:
        monkeypatch.setattr(web, "WEB", web.Web(f"http://{running.host}", stall=1.0))
        yield running


def push(registry: registry_server.Registry, *layers: bytes, arch: str = catalogue.architecture()) -> str:
    """Push an image with these layers as an index of one platform; return its digest."""
    added = [add(registry, layer) for layer in layers]
    digest = put(registry, {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "layers": added}, MANIFEST_TYPE)
    other = {"digest": "sha256:" + "0" * 64, "platform": {"os": "linux", "architecture": "s390x"}}
    entry = {"digest": digest, "platform": {"os": "linux", "architecture": arch}}
    return put(registry, {"schemaVersion": 2, "manifests": [other, entry]}, INDEX_TYPE, TAG)


def add(registry: registry_server.Registry, content: bytes) -> dict[str, Any]:
    registry.blobs[sha256_digest(content)] = content
    return {"digest": sha256_digest(content), "size": len(content)}


def put(registry: registry_server.Registry, document: dict[str, Any], kind: str, tag: str = "") -> str:
    content = json.dumps(document).encode()
    for name in (tag, sha256_digest(content)):
        registry.manifests[name] = (content, kind)
    return sha256_digest(content)


BASE, MANAGER = tar_gz({"etc/passwd": b"root"}), tar_gz({"third_party/LICENSE": b"text", "manager": elf()})


def test_the_program_comes_out_of_the_layers_and_the_digest_is_said(
    registry: registry_server.Registry,
) -> None:
    digest = push(registry, BASE, tar_gz({"manager": elf(b"hidden by a later layer")}), MANAGER)
    lines: list[str] = []
    path = tool_build.provide(KSERVE, lines.append)
    assert path.read_bytes() == elf()
    assert os.access(path, os.X_OK)
    assert lines == [
        f"kserve-manager {KSERVE.version} downloaded from docker.io, "
        f"checksum verified (registry's digest {digest})"
    ]
    told = json.loads(tool_build.read_stamp(KSERVE))["downloaded"]
    assert told["address"].startswith(f"docker.io/kserve/kserve-controller:{TAG} linux/")
    assert f"sha256:{told['sha256']}" == digest
    assert all(path.startswith("GET /v2/kserve/kserve-controller/") for path in registry.requests)
    assert tool_build.provide(KSERVE, pytest.fail) == path


def test_a_pinned_digest_is_asked_for(
    registry: registry_server.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = push(registry, MANAGER)
    push(registry, tar_gz({"manager": elf(b"what the tag names since")}))
    pinned = Image("docker.io/kserve/kserve-controller:v{version}", "manager", {KSERVE.version: digest})
    monkeypatch.setattr(catalogue, "RELEASES", {KSERVE.name: pinned})
    lines: list[str] = []
    assert tool_build.provide(KSERVE, lines.append).read_bytes() == elf()
    assert lines[0].endswith("checksum verified (pinned here)")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (registry_server.ReadFault(flip=20), "a layer: sha256:"),
        (registry_server.ReadFault(cut=20), "cannot be reached"),
        (registry_server.ReadFault(cut=20, stall=5), "cannot be reached"),
    ],
    ids=["another layer", "cut", "silent"],
)
def test_a_layer_that_is_not_whole_is_not_used(
    registry: registry_server.Registry, fault: registry_server.ReadFault, reason: str
) -> None:
    push(registry, MANAGER)
    registry.read_faults.append(fault)
    with pytest.raises(InputError) as refused:
        tool_build.provide(KSERVE, print)
    assert reason in str(refused.value)
    assert list(KSERVE.target.parent.iterdir()) == []


def test_another_layer_is_refused_also_where_building_is_allowed(
    registry: registry_server.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELCAR_TOOLS", "auto")
    monkeypatch.setattr(web.WEB, "unreachable", lambda: "")
    push(registry, MANAGER)
    registry.read_faults.append(registry_server.ReadFault(flip=20))
    with pytest.raises(InputError, match=r"(?s)a layer: sha256:.*MODELCAR_TOOLS=source"):
        tool_build.provide(KSERVE, print)


@pytest.mark.parametrize(
    ("layers", "arch", "reason"),
    [
        ((BASE,), catalogue.architecture(), "no program manager"),
        ((MANAGER,), "riscv64", "no program manager for linux/"),
        ((tar_gz({}, {"manager": "/bin/sh"}),), catalogue.architecture(), "no plain file"),
    ],
)
def test_an_image_without_the_program_is_said(
    registry: registry_server.Registry, layers: tuple[bytes, ...], arch: str, reason: str
) -> None:
    push(registry, *layers, arch=arch)
    with pytest.raises(InputError, match=reason):
        tool_build.provide(KSERVE, print)
    assert list(KSERVE.target.parent.iterdir()) == []


def test_a_tag_that_is_not_there_is_said(registry: registry_server.Registry) -> None:
    with pytest.raises(InputError, match=f"has no kserve/kserve-controller:{TAG}"):
        tool_build.provide(KSERVE, print)
