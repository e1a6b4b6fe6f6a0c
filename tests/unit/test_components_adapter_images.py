"""Adapters that are images of their own: what no server could load is refused before anything is declared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pulumi
import pytest

from components.config.image_place import ImagePlace
from components.config.stack import Stack
from components.image import adapter_images
from components.image.existing_image import Existing
from components.stack import model
from modelcar.errors import InputError
from modelcar.registry import Target
from tests import made_images as made
from tests import registry_server
from tests.unit.mocked_engine import Engine
from tests.unit.test_components_existing_image import told_by
from tests.unit.test_components_image_and_service import BASE
from tests.unit.test_components_models import load as load_stack


@pytest.fixture
def server() -> Iterator[registry_server.Registry]:
    with registry_server.serve() as running:
        yield running


def stack(server: registry_server.Registry, image: str) -> Stack:
    modules = {"loraModules": [{"name": "french", "image": image}]}
    place = {"registry": f"{server.host}/models", "registryInsecure": True}
    return load_stack({"name": "chat", "vllm": modules}, placement="imageVolume", **place)


def pushed(server: registry_server.Registry, *without: str, more: tuple[str, ...] = ()) -> str:
    files = {path: content for path, content in made.ADAPTER.items() if path not in without}
    files |= dict.fromkeys(more, b"more")
    image = made.image([made.layer(made.SHELL), made.layer(files)])
    return image.push(Target(f"{server.host}/adapters", "french", insecure=True))


def test_an_adapter_as_it_is_pushed_passes(server: registry_server.Registry) -> None:
    assert adapter_images.look(stack(server, pushed(server)), preview=False) == ([], ())


def test_an_adapter_with_pickles_is_told(server: registry_server.Registry) -> None:
    image = pushed(server, more=("models/optimizer.pt",))
    problems, [told] = adapter_images.look(stack(server, image), preview=False)
    assert problems == []
    assert "/models/optimizer.pt is a pickle: whoever made it may run code" in told


@pytest.mark.parametrize("missing", [path for path, content in made.ADAPTER.items() if content])
def test_an_image_without_an_adapter_is_refused(server: registry_server.Registry, missing: str) -> None:
    [problem], _ = adapter_images.look(stack(server, pushed(server, missing)), preview=False)
    assert problem.key == "modelcar:models[0].vllm.loraModules[0].image"
    assert f"has no /{missing}" in problem.value
    assert "modelcar push" in problem.fix


def test_an_image_that_is_not_there_is_refused(server: registry_server.Registry) -> None:
    nowhere = f"{server.host}/adapters/french@sha256:{'0' * 64}"
    [problem], _ = adapter_images.look(stack(server, nowhere), preview=False)
    assert "the registry does not have it" in problem.value


def test_a_registry_out_of_reach_stops_up_and_no_preview(server: registry_server.Registry) -> None:
    image = f"127.0.0.1:1/adapters/french@sha256:{'0' * 64}"
    [problem], doubts = adapter_images.look(stack(server, image), preview=False)
    assert not doubts
    assert "checkReachable" in problem.fix
    problems, [doubt] = adapter_images.look(stack(server, image), preview=True)
    assert not problems
    assert "not looked at" in doubt


def test_an_adapter_that_nobody_signed_is_not_served(
    server: registry_server.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the stack asks for signatures: the model's own is no answer for what comes beside it."""
    asked: list[str] = []

    def verify(reference: str, *_: Any, **__: Any) -> str | None:
        asked.append(reference)
        return "no signature" if "french" in reference else None

    monkeypatch.setattr("modelcar.signing.verify", verify)
    model_image = f"{server.host}/models/chat@sha256:{'1' * 64}"
    signature = {"identity": "a@example.org", "issuer": "https://accounts.example.org"}
    adapter = f"{server.host}/adapters/french@sha256:{'2' * 64}"
    modules = {"loraModules": [{"name": "german", "path": "german"}, {"name": "french", "image": adapter}]}
    modules["loraModules"].append({"name": "breton", "image": adapter})
    own = {"name": "chat", "image": model_image, "vllm": modules}
    place = {"registry": f"{server.host}/models", "registryInsecure": True, "signature": signature}
    [settings] = load_stack(own, placement="imageVolume", **place).models
    existing = Existing(ImagePlace.of(model_image), size=1)

    def program() -> dict[str, Any]:
        return told_by(model.Model("chat", model.ModelArgs(settings, None, BASE, Path(), existing=existing)))

    with pytest.raises(pulumi.RunError) as caught:
        Engine(preview=False).run(program)
    said = str(caught.value)
    assert f"chat: vllm.loraModules[1].image: {adapter} is not served: no signature; " in said
    assert f"vllm.loraModules[2].image: {adapter} is not served" in said, "each is told"
    assert "modelcar sign" in said
    assert asked == [model_image, adapter, adapter]
    assert Engine(preview=True).run(program)["storageUri"] == f"oci://{model_image}"
    monkeypatch.setattr("modelcar.signing.verify", lambda *_, **__: None)
    assert Engine(preview=False).run(program)["storageUri"] == f"oci://{model_image}"


@pytest.mark.parametrize("image", ["french@sha256:", "me/french@sha256:", "ghcr.io/me/french:v1", "french"])
def test_an_image_without_a_registrys_host_or_a_digest_is_refused(image: str) -> None:
    """The kubelet would take Docker Hub's, and this program would ask a host of that name."""
    whole = image + "0" * 64 if image.endswith(":") else image
    modules = {"loraModules": [{"name": "french", "image": whole}]}
    with pytest.raises(InputError) as caught:
        load_stack({"name": "chat", "vllm": modules}, placement="imageVolume")
    [problem] = caught.value.problems
    assert problem.key == "modelcar:models[0].vllm.loraModules[0].image"
    assert whole in problem.value
