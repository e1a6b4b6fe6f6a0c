"""The component provider: what a program in another language says, and what is declared of it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pulumi
import pytest

from tests.unit.mocked_engine import DIGEST, Engine

#: A model whose image is there, served by vLLM.
MODEL: dict[str, Any] = {
    "storage_uri": f"oci://registry.example.com/models/chat@{DIGEST}",
    "namespace": "models",
    "vllm_server": {"image": f"docker.io/vllm/vllm-openai:v0.23.0@{DIGEST}"},
}
SCALING = {"server_address": "http://prometheus:9090", "triggers": [{"type": "requests", "threshold": 4.0}]}


@pytest.fixture(scope="module")
def provider(package: Path) -> Iterator[ModuleType]:
    """The provider's module, as the wheel has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(package))
        yield importlib.import_module("modelcar_kserve.provider")


#: The same model, as the engine passes on what a program in YAML says; and one that is built.
SAID: dict[str, Any] = {
    "storageUri": MODEL["storage_uri"],
    "namespace": MODEL["namespace"],
    "vllmServer": MODEL["vllm_server"],
}
BUILT = {key: value for key, value in SAID.items() if key != "storageUri"} | {"lock": "a/model.lock"}


@pytest.fixture(scope="module")
def construct(provider: ModuleType) -> Callable[..., Engine]:
    """What previews a component of the provider, by its kind and what a program says."""
    started: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provider, "semver", lambda: "1.0.0")  # of an installed package
        patch.setattr("modelcar_kserve.provider_host.main", lambda made, _: started.append(made))
        provider.host()
    [made] = started

    def run(kind: str, said: Callable[[], dict[str, Any]]) -> Engine:
        engine = Engine(preview=True)

        def program() -> dict[str, pulumi.Output[Any]]:
            made.construct("chat", f"{provider.NAME}:index:{kind}", said(), pulumi.ResourceOptions())
            return {}

        engine.run(program)
        return engine

    return run


def test_what_a_program_says_arrives(construct: Callable[..., Engine]) -> None:
    said = {**SAID, "resources": {"gpus": 0.0, "memory": "64Gi"}, "serviceAccount": "puller"}
    engine = construct("ModelService", lambda: {**said, "nodePool": pulumi.Output.from_input("gpu")})
    server = engine.the("InferenceService").inputs["spec"]["predictor"]["model"]
    assert server["resources"]["limits"] == {"cpu": "4", "memory": "64Gi"}


def later(value: Any) -> pulumi.Output[Any]:
    return pulumi.Output.from_input(value)


@pytest.mark.parametrize(
    ("kind", "said", "places"),
    [
        ("ModelService", lambda: {**SAID, "resources": later({"gpus": 0.0})}, ["resources"]),
        ("ModelService", lambda: {**SAID, "resources": pulumi.UNKNOWN}, ["resources"]),
        (
            "ModelService",
            lambda: {**SAID, "replicas": later({"idle": True}), "termination": pulumi.Output.secret({})},
            ["replicas", "termination"],
        ),
        ("ModelService", lambda: {**SAID, "replicas": {"idle": later(True)}}, ["replicas.idle"]),
        (
            "ModelService",
            lambda: {**SAID, "scheduling": {"tolerations": [{"key": "a"}, later({"key": "b"})]}},
            ["scheduling.tolerations[1]"],
        ),
        (
            "ServedModel",
            lambda: {**BUILT, "registry": later("r/x"), "image": later({"signature": {"publicKey": "a"}})},
            ["image"],
        ),
        ("EgressPolicy", lambda: {"service": "a", "namespace": "b", "settings": later({})}, ["settings"]),
        ("ModelcarImage", lambda: {"lock": "a", "registry": "r/x", "insecure": later(False)}, ["insecure"]),
        (
            "GoogleCloud",
            lambda: {"settings": {"project": "p"}, "needs": {"gpu": later({"modelBytes": 1.0})}},
            ["needs.gpu"],
        ),
    ],
)
def test_what_is_not_there_yet_is_refused_and_not_left_out(
    construct: Callable[..., Engine], kind: str, said: Callable[[], dict[str, Any]], places: list[str]
) -> None:
    with pytest.raises(pulumi.InputPropertiesError) as refused:
        construct(kind, said)
    errors = refused.value.errors or []
    assert [one["property_path"] for one in errors] == places
    assert all(one["reason"].startswith("an output of another resource") for one in errors)


def test_labels_may_be_outputs(construct: Callable[..., Engine]) -> None:
    place = {"project": "my-project", "region": "europe-west4", "reader": "nodes@p.iam.gserviceaccount.com"}
    engine = construct("ModelRegistry", lambda: {**place, "labels": {"team": later("search")}})
    assert engine.the("Repository").inputs["labels"] == {"team": "search"}


def test_a_section_is_an_object(construct: Callable[..., Engine]) -> None:
    with pytest.raises(pulumi.InputPropertiesError) as refused:
        construct("ModelService", lambda: {**SAID, "resources": "small", "probes": [1]})
    errors = refused.value.errors or []
    assert [(one["property_path"], one["reason"].partition("\n")[0]) for one in errors] == [
        ("resources", "not a section"),
        ("probes", "not a section"),
    ]


@pytest.mark.parametrize("idle", [False, True])
def test_no_autoscaler_wakes_an_idle_model(provider: ModuleType, idle: bool) -> None:
    engine = Engine(preview=True)
    replicas = {"min": 1, "max": 4, "idle": idle}
    args = {**MODEL, "replicas": replicas, "autoscaling": SCALING}
    engine.run(lambda: {"endpoint": provider.ServedModel("chat", args).endpoint})
    assert engine.the("InferenceService")
    scaled = [one for one in engine.declared if one.type.endswith(":ScaledObject")]
    assert len(scaled) == (0 if idle else 1)
