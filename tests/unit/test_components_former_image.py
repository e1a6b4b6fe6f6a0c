"""modelcar:rollbackTo: only what the registry has, and what is trusted, is served in place of the lock's."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pulumi
import pytest

from components.config.settings import Settings
from components.image import former_image
from components.image.modelcar_image import ModelcarImage, ModelcarImageArgs
from modelcar.errors import InputError
from modelcar.image import modelcar_image
from modelcar.manifest import MANIFEST_TYPE, Image
from tests import registry_server
from tests.unit.mocked_engine import Engine
from tests.unit.test_components_image_and_service import BASE, LOCK, make_lock
from tests.unit.test_components_settings import load

FORMER_LOCK = make_lock("5")
FORMER = modelcar_image(FORMER_LOCK, BASE)
ABSENT = "sha256:" + "0" * 64


@pytest.fixture
def server() -> Iterator[registry_server.Registry]:
    with registry_server.serve() as made:
        put(made, FORMER)
        yield made


def put(server: registry_server.Registry, image: Image) -> None:
    server.manifests[image.digest] = (image.manifest, MANIFEST_TYPE)


def settings(server: registry_server.Registry, digest: str | None = FORMER.digest, **more: Any) -> Settings:
    place: dict[str, Any] = {
        "registry": f"{server.host}/models",
        "registryInsecure": True,
        "imageName": "tiny",
    }
    return load(rollbackTo=digest, **place, **more)


def declare(engine: Engine, found: Settings) -> dict[str, Any]:
    former = former_image.find(found, preview=engine.preview)

    def program() -> dict[str, pulumi.Output[Any]]:
        image = ModelcarImage(
            "tiny", ModelcarImageArgs(lock=LOCK, base=BASE, registry=found.registry, name="tiny")
        )
        return vars(former_image.served(found, Path(), image, former))

    return engine.run(program, modelcar_image(LOCK, BASE).digest)


@pytest.mark.parametrize("preview", [True, False], ids=["preview", "up"])
def test_the_former_image_is_served_and_told_to_others(
    server: registry_server.Registry, preview: bool
) -> None:
    found = declare(Engine(preview), settings(server))
    assert found == {
        "digest": FORMER.digest,
        "storage_uri": f"oci://{server.host}/models/tiny@{FORMER.digest}",
        "reference": f"{server.host}/models/tiny:{FORMER.digest[7:23]}",
        "lock_digest": FORMER_LOCK.digest,
        "size_bytes": sum(layer.size for layer in FORMER_LOCK.layers),
    }


def test_without_the_setting_the_locks_image_is_served() -> None:
    with registry_server.serve() as server:
        pass  # nobody asks it
    found = declare(Engine(preview=False), settings(server, None))
    assert found["digest"] == modelcar_image(LOCK, BASE).digest
    assert (found["lock_digest"], found["size_bytes"]) == (LOCK.digest, LOCK.total_size)


def test_a_digest_that_is_not_there_is_refused_before_anything_is_declared(
    server: registry_server.Registry,
) -> None:
    for preview in (True, False):
        with pytest.raises(InputError, match="does not have it") as raised:
            former_image.find(settings(server, ABSENT), preview=preview)
        assert "modelcar:rollbackTo" in str(raised.value)
        assert "operations revisions" in str(raised.value)


def test_an_index_is_refused(server: registry_server.Registry) -> None:
    other = dataclasses.replace(FORMER, manifest=b'{"manifests": []}')
    put(server, other)
    with pytest.raises(InputError, match="not the image of one platform"):
        former_image.find(settings(server, other.digest), preview=False)


def test_an_image_without_annotations_does_not_say_its_lock(server: registry_server.Registry) -> None:
    other = dataclasses.replace(
        FORMER, manifest=b'{"layers": [{"digest": "a", "size": 1}, {"digest": "b", "size": 7}]}'
    )
    put(server, other)
    found = declare(Engine(preview=False), settings(server, other.digest))
    assert (found["lock_digest"], found["size_bytes"]) == ("", 7)


def test_without_the_registry_a_preview_goes_on_and_up_does_not() -> None:
    with registry_server.serve() as server:
        found = settings(server)
    with pytest.raises(InputError, match="cannot be reached"):
        former_image.find(found, preview=False)
    assert former_image.find(found, preview=True) == former_image.Former(FORMER.digest)


def test_a_former_image_without_a_signature_is_not_served(
    server: registry_server.Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def verify(reference: str, *_: Any, **__: Any) -> str | None:
        asked.append(reference)
        return "no signature"

    monkeypatch.setattr("modelcar.signing.verify", verify)
    signature = {"identity": "a@example.org", "issuer": "https://accounts.example.org"}
    with pytest.raises(pulumi.RunError, match="not rolled back to: no signature; nothing was deployed"):
        declare(Engine(preview=False), settings(server, signature=signature))
    assert asked == [f"{server.host}/models/tiny@{FORMER.digest}"]
