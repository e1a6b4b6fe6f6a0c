"""The component provider: what a program in another language says, and what is declared of it."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pulumi
import pytest
from pulumi.provider.server import ComponentInitError

from tests.unit.mocked_engine import DIGEST, Engine

#: A model whose image is there, served by vLLM.
MODEL: dict[str, Any] = {
    "storage_uri": f"oci://registry.example.com/models/chat@{DIGEST}",
    "namespace": "models",
    "vllm_server": {"image": f"docker.io/vllm/vllm-openai:v0.23.0@{DIGEST}"},
}
SCALING = {"server_address": "http://prometheus:9090", "triggers": [{"type": "requests", "threshold": 4.0}]}


ARGUMENTS = "modelcar_kserve.components.config.arguments"


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
GOOGLE: dict[str, Any] = {
    "project": "my-project",
    "region": "europe-west4",
    "cluster": {},
    "nodes": {"gpu": "nvidia-l4", "machineType": "g2-standard-8"},
}
BUILT = {key: value for key, value in SAID.items() if key != "storageUri"} | {"lock": "a/model.lock"}


@pytest.fixture(scope="module")
def construct(provider: ModuleType) -> Callable[..., Engine]:
    """What previews a component of the provider, by its kind and what a program says."""
    started: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provider, "semver", lambda: "1.0.0")  # of an installed package
        patch.setattr("modelcar_kserve.provider_host.main", lambda made, _: started.append(made))
        patch.setattr(f"{ARGUMENTS}.spelled", str)  # what host() sets is undone
        provider.host()
    [made] = started

    def run(kind: str, said: Callable[[], dict[str, Any]], protect: bool = False) -> Engine:
        engine = Engine(preview=True)

        def program() -> dict[str, pulumi.Output[Any]]:
            options = pulumi.ResourceOptions(protect=protect)
            made.construct("chat", f"{provider.NAME}:index:{kind}", said(), options)
            return {}

        engine.run(program)
        return engine

    return run


def test_what_a_program_says_arrives(construct: Callable[..., Engine]) -> None:
    said = {**SAID, "resources": {"gpus": 0.0, "memory": "64Gi"}, "serviceAccount": "puller"}
    engine = construct("ModelService", lambda: {**said, "nodePool": pulumi.Output.from_input("gpu")})
    server = engine.the("InferenceService").inputs["spec"]["predictor"]["model"]
    assert server["resources"]["limits"] == {"cpu": "4", "memory": "64Gi"}


def refusals(construct: Callable[..., Engine], kind: str, said: dict[str, Any]) -> dict[str, str]:
    """What is refused of what a program says, and why, by its place."""
    with pytest.raises(pulumi.InputPropertiesError) as refused:
        construct(kind, lambda: said)
    return {one["property_path"]: one["reason"] for one in refused.value.errors or []}


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
            lambda: {"settings": GOOGLE, "needs": {"gpu": later({"model": 1.0})}},
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


def test_what_a_program_protects_is_protected_with_all_in_it(construct: Callable[..., Engine]) -> None:
    made = {**GOOGLE, "cluster": {"name": "models", "create": True}}
    engine = construct("GoogleCloud", lambda: {"settings": made}, protect=True)
    assert all(found.protect for found in engine.declared)
    assert engine.the("Cluster").inputs["deletionProtection"] is True
    registry = construct("ModelRegistry", lambda: REGISTRY, protect=True)
    assert registry.the("Repository").protect


GATEWAY = {"fromNamespaces": ["gateway"]}
ACCOUNT = "nodes@p.iam.gserviceaccount.com"
REGISTRY = {"project": "my-project", "region": "europe-west4", "reader": ACCOUNT}


@pytest.mark.parametrize(
    ("kind", "said", "found"),
    [
        ("ServedModel", {**SAID, "egres": {}, "ingres": GATEWAY}, {"egres": "egress", "ingres": "ingress"}),
        ("ModelService", {**SAID, "deployment_mode": "Knative"}, {"deployment_mode": "deploymentMode"}),
        (
            "ModelService",
            {
                **SAID,
                "resources": {"gpuss": 0.0, "Memory": "64Gi"},
                "scheduling": {"nodeSelectr": {"a": "b"}},
            },
            {
                "resources.gpuss": "gpus",
                "resources.Memory": "memory",
                "scheduling.nodeSelectr": "nodeSelector",
            },
        ),
        (
            "ServedModel",
            {**BUILT, "registry": "r/x", "image": {"signature": {"publickey": "cosign.pub"}}},
            {"image.signature.publickey": "publicKey"},
        ),
        (
            "ModelService",
            {**SAID, "scheduling": {"tolerations": [{"key": "a"}, {"kye": "b"}]}},
            {"scheduling.tolerations[1].kye": "key"},
        ),
    ],
)
def test_a_name_that_is_not_known_is_refused_and_not_left_out(
    construct: Callable[..., Engine], kind: str, said: dict[str, Any], found: dict[str, str]
) -> None:
    told = refusals(construct, kind, said)
    assert list(told) == list(found)
    for place, meant in found.items():
        assert told[place].startswith("unknown")
        assert f"did you mean {meant}?" in told[place]


def test_a_name_like_none_may_be_one_of_a_newer_release(construct: Callable[..., Engine]) -> None:
    told = refusals(construct, "ModelService", {**SAID, "somethingNew": True})
    assert "remove it (plugin 1.0.0; an SDK of another release may have it)" in told["somethingNew"]


@pytest.mark.parametrize(
    ("kind", "said", "found"),
    [
        (
            "ModelService",
            {**SAID, "resources": "small", "probes": [1]},
            {"resources": "a text", "probes": "a list"},
        ),
        ("ModelService", {**SAID, "awaitReady": "no"}, {"awaitReady": "a text"}),
        ("ModelService", {**SAID, "imports": "InferenceService"}, {"imports": "a text"}),
        ("ModelService", {**SAID, "lock": 5.0}, {"lock": "a number"}),
        ("ModelService", {**SAID, "startTimeoutSeconds": 30.7}, {"startTimeoutSeconds": "a number"}),
        ("ModelService", {**SAID, "resources": {"gpus": "one"}}, {"resources.gpus": "a text"}),
        (
            "ModelService",
            {"vllmServer": {}},
            {"vllmServer.image": "not set", "storageUri": "not set", "namespace": "not set"},
        ),
        ("ModelRegistry", {**REGISTRY, "labels": ["a"]}, {"labels": "a list"}),
        ("ModelRegistry", {**REGISTRY, "protect": 1.0}, {"protect": "a number"}),
    ],
)
def test_values_are_of_the_types_that_the_schema_has(
    construct: Callable[..., Engine], kind: str, said: dict[str, Any], found: dict[str, str]
) -> None:
    told = refusals(construct, kind, said)
    assert {place: reason.partition("\n")[0] for place, reason in told.items()} == found


def test_a_number_passes_for_a_text_where_the_argument_takes_one(construct: Callable[..., Engine]) -> None:
    engine = construct("ModelService", lambda: {**SAID, "resources": {"cpu": 6.0}})
    assert (
        engine.the("InferenceService").inputs["spec"]["predictor"]["model"]["resources"]["limits"]["cpu"]
        == "6"
    )


@pytest.mark.parametrize(
    "unused",
    [
        {"registry": "registry.example.com/models"},
        {"project": "."},
        {"image": {"signature": {"publicKey": "cosign.pub"}}, "registry": "Not A Registry"},
    ],
)
def test_an_image_that_is_there_is_not_built_and_what_says_how_is_refused(
    construct: Callable[..., Engine], unused: dict[str, Any]
) -> None:
    with pytest.raises(ComponentInitError) as refused:
        construct("ServedModel", lambda: {**SAID, **unused})
    for key in unused:
        assert f"{key}: set beside storageUri" in str(refused.value.inner)
        assert f"set lock in place of storageUri, or remove {key}" in str(refused.value.inner)


def vllm(**more: Any) -> dict[str, Any]:
    return {**SAID, "vllmServer": {**SAID["vllmServer"], **more}}


UNNAMED = {**SAID["vllmServer"], "env": {"USER": ""}}
CUSTOM = {key: value for key, value in SAID.items() if key != "vllmServer"} | {"customServer": UNNAMED}


@pytest.mark.parametrize(
    ("kind", "said", "told"),
    [
        ("ModelService", vllm(env={"HF_HOME": 1.0}), "vllmServer.env.HF_HOME: not shown"),
        ("ModelService", vllm(loraModules=[{"name": "a", "path": "/x"}]), "vllmServer.loraModules[0].path: "),
        ("ModelService", vllm(loraModules=[{"name": "a"}]), "vllmServer.loraModules[0].path: not set"),
        ("ModelService", vllm(env={"USER": ""}), "vllmServer.env: USER is empty"),
        ("ModelService", CUSTOM, "customServer.env: USER is empty"),
        ("ModelService", {**SAID, "startTimeoutSeconds": 0.0}, "fix: correct startTimeoutSeconds"),
        ("ModelService", {**SAID, "resources": {"cpuLimit": "1"}}, "raise resources.cpuLimit or lower"),
        ("ModelService", {**SAID, "imports": ["InferenceServce"]}, "did you mean InferenceService?"),
        ("ModelService", {**SAID, "autoscaling": {"triggers": []}}, "autoscaling.triggers: []: nothing asks"),
    ],
)
def test_what_is_wrong_is_told_with_the_names_that_the_program_has(
    construct: Callable[..., Engine], kind: str, said: dict[str, Any], told: str
) -> None:
    with pytest.raises(ComponentInitError) as refused:
        construct(kind, lambda: said)
    assert told in str(refused.value)
    assert "_" not in str(refused.value).replace("HF_HOME", "").partition("allowed")[0]


def test_what_a_run_tells_later_has_the_names_that_the_program_has(
    provider: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.import_module("modelcar_kserve.components.kserve.spec")

    def told() -> str:
        fix = "set modelcar:gpuCount to 4, or lower modelcar:vllm.tensorParallelSize; modelcar:kubeContext"
        with pytest.raises(pulumi.RunError) as caught, spec.in_own_words():
            raise pulumi.RunError(f"models/chat does not serve\n  fix: {fix}")
        return str(caught.value).partition("fix: ")[2]

    assert told() == "set resources.gpus to 4, or lower server.tensor_parallel_size; access.context"
    monkeypatch.setattr(provider, "semver", lambda: "1.0.0")
    monkeypatch.setattr("modelcar_kserve.provider_host.main", lambda *_: None)
    monkeypatch.setattr(f"{ARGUMENTS}.spelled", str)
    provider.host()
    assert told() == "set resources.gpus to 4, or lower vllmServer.tensorParallelSize; kubeContext"


def test_a_cluster_is_known_by_its_identifier(construct: Callable[..., Engine], provider: ModuleType) -> None:
    """Without one, its provider takes another address for another cluster, and all in it is made anew."""

    def said() -> dict[str, Any]:
        reached = {"kubeconfig": later("{}"), "clusterIdentifier": later("models.gke.goog")}
        return {"service": "a", "namespace": "b", "settings": {"restrict": True}, **reached}

    engine = construct("EgressPolicy", said)
    [made] = [one for one in engine.declared if one.type == "pulumi:providers:kubernetes"]
    assert made.inputs["clusterIdentifier"] == "models.gke.goog"
    google = importlib.import_module("modelcar_kserve.provider_google")
    settings = {**GOOGLE, "cluster": {"name": "models", "create": True}}
    told = Engine(preview=False).run(
        lambda: {"identifier": google.GoogleCloud("cloud", {"settings": settings}).cluster_identifier}
    )
    assert told == {"identifier": "models.gke.goog"}


def test_a_model_that_does_not_serve_is_not_scaled(
    provider: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "modelcar_kserve.components.kserve.model_service"
    engine = Engine(preview=False)

    def kinds() -> set[str]:
        return {one.type.rpartition(":")[2] for one in engine.declared}

    def wait(*_: Any) -> None:
        deadline = time.monotonic() + 1  # within which what does not wait is declared
        while "ScaledObject" not in kinds() and time.monotonic() < deadline:
            time.sleep(0.01)
        raise pulumi.RunError("it does not serve")

    monkeypatch.setattr(f"{module}.await_rolled_out", wait)
    args = {**MODEL, "replicas": {"min": 1, "max": 4}, "autoscaling": SCALING}
    with pytest.raises(pulumi.RunError, match="it does not serve"):
        engine.run(lambda: {"endpoint": provider.ServedModel("chat", args).endpoint})
    assert "InferenceService" in kinds()
    assert "ScaledObject" not in kinds()


@pytest.mark.parametrize("idle", [False, True])
def test_no_autoscaler_wakes_an_idle_model(provider: ModuleType, idle: bool) -> None:
    engine = Engine(preview=True)
    replicas = {"min": 1, "max": 4, "idle": idle}
    args = {**MODEL, "replicas": replicas, "autoscaling": SCALING}
    engine.run(lambda: {"endpoint": provider.ServedModel("chat", args).endpoint})
    assert engine.the("InferenceService")
    scaled = [one for one in engine.declared if one.type.endswith(":ScaledObject")]
    assert len(scaled) == (0 if idle else 1)
