"""A ServingRuntime changes once an image is there: KServe makes new pods of it at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pulumi
import pytest
from pulumi_kubernetes.apiextensions import CustomResource

from components.kserve.model_service import ModelService
from components.stack import delivery
from components.stack.preflight import CheckedStack
from tests.unit.mocked_engine import UNKNOWN, Engine
from tests.unit.test_components_image_and_service import STORAGE_URI, service_args, stack
from tests.unit.test_components_models import CHAT, CODE
from tests.unit.test_components_models import load as load_models

Uri = Callable[[Engine], pulumi.Output[str]]


def kinds(engine: Engine) -> list[str]:
    return [found.type.split(":")[-1] for found in engine.declared]


async def others_are_there(engine: Engine) -> None:
    """Return once what is declared last, and waits for nothing, is there; and what is on its way then."""
    while "Last" not in kinds(engine):
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.3)


def last(parent: pulumi.Resource) -> None:
    CustomResource(
        "last", api_version="example.org/v1", kind="Last", opts=pulumi.ResourceOptions(parent=parent)
    )


def built_later(engine: Engine, seen: list[str]) -> pulumi.Output[str]:
    """Return a URI that takes its time, and note what is declared by then."""

    async def build() -> str:
        await others_are_there(engine)
        seen.extend(kinds(engine))
        return STORAGE_URI

    return pulumi.Output.from_input(build())


def ready(_: Engine) -> pulumi.Output[str]:
    return pulumi.Output.from_input(STORAGE_URI)


def failing(engine: Engine) -> pulumi.Output[str]:
    async def build() -> str:
        await others_are_there(engine)
        raise pulumi.RunError("the image is not signed")

    return pulumi.Output.from_input(build())


def unknown(_: Engine) -> pulumi.Output[str]:
    return pulumi.Output.from_input(pulumi.UNKNOWN)  # type: ignore[arg-type]


def serve(engine: Engine, uri: Uri) -> dict[str, Any]:
    def program() -> dict[str, pulumi.Output[Any]]:
        service = ModelService("tiny", service_args(uri(engine), stack()))
        last(service)
        return {"uri": service.storage_uri}

    return engine.run(program)


def test_a_runtime_changes_once_the_image_is_there() -> None:
    engine, seen = Engine(preview=False), list[str]()
    assert serve(engine, lambda engine: built_later(engine, seen)) == {"uri": STORAGE_URI}
    assert sorted(seen) == ["Last", "ModelService"], "pods of the former image would run with new arguments"
    assert kinds(engine)[-2:] == ["ServingRuntime", "InferenceService"]


def test_a_runtime_stays_as_it_was_where_the_image_fails() -> None:
    engine = Engine(preview=False)
    with pytest.raises(pulumi.RunError, match="the image is not signed"):
        serve(engine, failing)
    assert "ServingRuntime" not in kinds(engine)


def test_a_preview_shows_the_runtime_before_the_image_is_known() -> None:
    preview, up = Engine(preview=True, secrets=True), Engine(preview=False, secrets=True)
    assert serve(preview, unknown) == {"uri": UNKNOWN}
    serve(up, lambda _: pulumi.Output.secret(STORAGE_URI))
    shown, made = preview.the("ServingRuntime"), up.the("ServingRuntime")
    assert shown.inputs == made.inputs, "nothing of it is unknown, and nothing a secret"
    assert shown.dependencies == made.dependencies == ()


def share(engine: Engine, **uris: Uri) -> list[str]:
    """Declare a stack whose models share a runtime, and return the keys of those that fail."""
    shared = {"sharedRuntime": "vllm", "checkReachable": False}
    facts = CheckedStack(load_models(CHAT, CODE, **shared), {}, {}, {})
    failed: list[str] = []

    def program() -> dict[str, pulumi.Output[Any]]:
        place = delivery.destination(facts, None)
        assert place
        served = {}
        for model in facts.stack.models:
            parent = pulumi.ComponentResource("test:index:Model", model.key)
            uri = uris[model.key](engine)
            served[model.key] = delivery.to_cluster(parent, model.key, model, uri, place).served
        last(parent)

        async def wait() -> list[str]:
            for key, output in served.items():
                try:
                    await output.future()
                except Exception:
                    failed.append(key)
            return failed

        return {"failed": pulumi.Output.from_input(wait())}

    try:
        engine.run(program)
    except pulumi.RunError:
        assert failed, "what a model failed by is the program's error too"
    return failed


def test_a_shared_runtime_changes_once_all_images_are_there() -> None:
    engine, seen = Engine(preview=False), list[str]()
    assert share(engine, chat=ready, code=lambda engine: built_later(engine, seen)) == []
    assert "ServingRuntime" not in seen
    assert kinds(engine).count("ServingRuntime") == 1
    assert kinds(engine).count("InferenceService") == 2


def test_one_models_failure_keeps_no_shared_runtime_from_the_others() -> None:
    engine = Engine(preview=False)
    assert share(engine, chat=failing, code=ready) == ["chat"]
    assert engine.the("ServingRuntime")
    assert engine.the("InferenceService").inputs["metadata"]["name"] == "code"


@pytest.mark.parametrize("uri", [failing, unknown])
def test_a_shared_runtime_stays_as_it_was_where_no_image_is_there(uri: Uri) -> None:
    engine = Engine(preview=False)
    share(engine, chat=uri, code=uri)
    assert "ServingRuntime" not in kinds(engine)


def test_a_preview_shows_a_shared_runtime() -> None:
    engine = Engine(preview=True)
    share(engine, chat=unknown, code=unknown)
    assert engine.the("ServingRuntime").inputs["spec"]["containers"]
