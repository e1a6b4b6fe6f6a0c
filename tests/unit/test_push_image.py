"""`push --image`: a whole image without any builder, as an adapter's is made."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelcar.__main__ import main
from modelcar.base import read_base
from modelcar.build_options import image_tag
from modelcar.existing_image import look
from modelcar.image import modelcar_image
from modelcar.lock import lock_path
from modelcar.lock_reader import read_lock
from modelcar.registry import Registry, Target
from tests import registry_server


@pytest.fixture
def server() -> Iterator[registry_server.Registry]:
    with registry_server.serve() as running:
        yield running


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """Lock an adapter in a project of the test's own; return the project."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8}')
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    weights = len(header).to_bytes(8, "little") + header + bytes(4)
    (folder / "adapter_model.safetensors").write_bytes(weights)
    assert not main(
        ["--project", str(tmp_path), "lock", "french", "--folder", str(folder), "--layout", "any"]
    )
    return tmp_path


def test_an_adapter_becomes_an_image_that_can_be_pulled(
    server: registry_server.Registry, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = f"{server.host}/models/french"
    capsys.readouterr()
    assert not main(["--project", str(adapter), "push", "french", place, "--insecure", "--image"])
    digest = modelcar_image(read_lock(lock_path(adapter, "french")), read_base("amd64")).digest
    assert capsys.readouterr().out == f"{place}@{digest}\n", "for a script to take"
    with Registry(Target(f"{server.host}/models", "french", insecure=True)) as registry:
        image = look(registry, digest, "amd64")
    assert image is not None
    assert image.files.find("models/adapter_config.json")


def push(adapter: Path, place: str, *more: str) -> int:
    return main(["--project", str(adapter), "push", "french", place, "--insecure", "--image", *more])


def test_it_has_the_tag_that_up_gives_images(server: registry_server.Registry, adapter: Path) -> None:
    """What has no tag is deleted by the cleanup of the stack's own Artifact Registry repository."""
    digest = modelcar_image(read_lock(lock_path(adapter, "french")), read_base("amd64")).digest
    server.immutable_tags = True
    assert not push(adapter, f"{server.host}/models/french")
    assert not push(adapter, f"{server.host}/models/french"), "again, though no tag may move"
    with Registry(Target(f"{server.host}/models", "french", insecure=True)) as registry:
        assert {found: tags for found, (_, tags) in registry.tagged().items()} == {
            digest: [image_tag(digest)]
        }


@pytest.mark.parametrize("wants", ["Basic", "Bearer"])
def test_a_registry_that_everybody_may_read_asks_for_credentials_when_the_tag_is_written(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wants: str
) -> None:
    """An image whose layers are there is read from end to end before its manifest is sent."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    digest = modelcar_image(read_lock(lock_path(adapter, "french")), read_base("amd64")).digest
    with registry_server.serve(wants) as server:
        server.reads_are_public = True
        pair = f"{registry_server.USER}:{registry_server.PASSWORD}".encode()
        known = {"auth": base64.b64encode(pair).decode()}
        (tmp_path / "config.json").write_text(json.dumps({"auths": {server.host: known}}))
        assert not push(adapter, f"{server.host}/models/french")
        server.manifests.clear()
        assert not push(adapter, f"{server.host}/models/french")
        assert set(server.manifests) == {digest, image_tag(digest)}


def test_a_tag_of_another_image_is_never_moved(
    server: registry_server.Registry, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = modelcar_image(read_lock(lock_path(adapter, "french")), read_base("amd64")).digest
    server.manifests[image_tag(digest)] = theirs = (b"{}", "application/json")
    assert push(adapter, f"{server.host}/models/french") == 2
    assert f"french:{image_tag(digest)}: names sha256:" in capsys.readouterr().err
    assert server.manifests[image_tag(digest)] == theirs


def test_nodes_of_another_processor_get_their_own(
    server: registry_server.Registry, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, base = f"{server.host}/models/french", read_base("arm64")
    server.there[base.layer.digest] = base.layer.size  # it is downloaded where the registry lacks it
    capsys.readouterr()
    assert not push(adapter, place, "--architecture", "arm64")
    image = modelcar_image(read_lock(lock_path(adapter, "french")), base)
    assert capsys.readouterr().out == f"{place}@{image.digest}\n"
    assert server.manifests[image_tag(image.digest)][0] == image.manifest
    assert json.loads(server.blobs[image.config_digest])["architecture"] == "arm64"
    assert {layer.digest for layer in image.layers} <= {*server.blobs, *server.there}


def test_without_it_only_layers_are_there(server: registry_server.Registry, adapter: Path) -> None:
    assert not main(
        ["--project", str(adapter), "push", "french", f"{server.host}/models/french", "--insecure"]
    )
    digest = modelcar_image(read_lock(lock_path(adapter, "french")), read_base("amd64")).digest
    with Registry(Target(f"{server.host}/models", "french", insecure=True)) as registry:
        assert registry.manifest(digest) is None


def test_a_builder_makes_no_image(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--project", str(adapter), "push", "french", "registry.example/m/f", "--image"]
    assert main([*command, "--builder", "b"]) == 2
    assert "--image: beside --builder" in capsys.readouterr().err
