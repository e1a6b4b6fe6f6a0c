"""What a stack says as a Pulumi secret is one in its state, and is written and shown nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi.runtime import rpc

from components.cluster.access import ClusterError
from components.cluster.guard import ClusterAccess
from components.config.fields import MAY_HOLD_SECRETS
from components.config.models import load_stack
from components.config.secrets import KEPT, OF_SERVER, Secrets
from components.config.section import Section
from components.config.settings import Settings
from components.config.stack import Stack
from components.engine.secrets import kept
from components.engine.taken_over import telling
from components.kserve.kserve_platform import KServePlatform, KServePlatformArgs
from components.kserve.model_service import ModelService, ModelServiceArgs
from components.kserve.pre_pull import PrePull, PrePullArgs
from components.kserve.server import CustomServer, VllmServer
from components.manifests import gitops
from components.stack import configuration, delivery
from components.stack.preflight import CheckedStack
from modelcar.errors import InputError, refuse
from operations import __main__ as operations
from operations import stack as operations_stack
from tests.unit.fake_cluster import FakeCluster
from tests.unit.mocked_engine import DIGEST, Engine
from tests.unit.test_components_image_and_service import STORAGE_URI
from tests.unit.test_components_settings import MINIMAL, as_text

CANARY = "canary-7f2c91"
KUBECONFIG = f"apiVersion: v1\nkind: Config\nusers:\n- user: {{token: {CANARY}}}\n"
SERVER = {"serverEnv": [f"VLLM_API_KEY={CANARY}"], "serverArgs": ["--api-key", CANARY]}


def texts(**changes: Any) -> dict[str, str]:
    values = {**MINIMAL, "checkReachable": False, **changes}
    return {f"modelcar:{key}": as_text(value) for key, value in values.items() if value is not None}


def load(*secret: str, **changes: Any) -> Stack:
    return load_stack(texts(**changes), Path("/nowhere"), [f"modelcar:{key}" for key in secret])


def declared(stack: Stack, preview: bool = False) -> Engine:
    engine = Engine(preview, secrets=True)

    def program() -> dict[str, pulumi.Output[Any]]:
        found = delivery.destination(CheckedStack(stack, {}, {}, {}), None)
        assert found
        served = {}
        for settings in stack.models:
            parent = pulumi.ComponentResource("modelcar:kserve:Model", settings.key)
            uri = pulumi.Output.from_input(STORAGE_URI)
            served[settings.key] = delivery.to_cluster(parent, settings.key, settings, uri, found).served
        return served

    outputs = engine.run(program)
    assert set(outputs.values()) == {STORAGE_URI}, "what others are told is no secret"
    return engine


@pytest.mark.parametrize("preview", [True, False], ids=["preview", "up"])
@pytest.mark.parametrize("placement", ["servingRuntime", "storageUriEnv", "storageUris", "imageVolume"])
@pytest.mark.parametrize("key", ["serverEnv", "serverArgs"])
def test_what_the_server_is_told_as_a_secret_is_one_in_the_state(
    key: str, placement: str, preview: bool
) -> None:
    engine = declared(load(key, placement=placement, **{key: SERVER[key]}), preview)
    objects = [row for row in engine.declared if CANARY in json.dumps(row.inputs, default=str)]
    assert objects
    for row in objects:
        assert [name for name, value in row.inputs.items() if CANARY in str(value)] == ["spec"]
        assert rpc.is_rpc_secret(row.inputs["spec"]), row.type


def test_in_a_list_of_models_and_in_a_runtime_that_they_share() -> None:
    models = [{"name": "chat", **SERVER}, {"name": "code"}]
    own = {"model": None, "serviceName": None, "models": models, "sharedRuntime": "vllm"}
    command = ["server", f"--token={CANARY}"]
    engine = declared(load("models", "serverCommand", serverCommand=command, **own))
    found = {row.type.split(":")[-1]: row for row in engine.declared if CANARY in str(row.inputs)}
    assert set(found) == {"InferenceService", "ServingRuntime"}
    assert all(rpc.is_rpc_secret(row.inputs["spec"]) for row in found.values())


def test_only_what_may_hold_the_secret_is_hidden_and_the_rest_of_a_preview_can_be_read() -> None:
    server = {"name": "server", "image": "i", "env": [{"name": "A", "value": "1"}], "args": ["--x"]}
    found: dict[str, Any] = {}

    def program() -> dict[str, pulumi.Output[Any]]:
        found.update(kept({"predictor": {"containers": [server], "minReplicas": 1}}))
        return {}

    Engine(preview=True).run(program)
    [container] = found["predictor"]["containers"]
    assert (container["name"], container["image"], found["predictor"]["minReplicas"]) == ("server", "i", 1)
    assert all(isinstance(container[key], pulumi.Output) for key in ("env", "args"))


def test_without_a_secret_everything_is_as_before() -> None:
    engine = declared(load(kubeconfig=KUBECONFIG, **SERVER))
    assert not [row for row in engine.declared if any(map(rpc.is_rpc_secret, row.inputs.values()))]


def test_a_secret_kubeconfig_is_one_in_the_providers_state() -> None:
    engine = declared(load("kubeconfig", kubeconfig=KUBECONFIG))
    given = engine.the("kubernetes").inputs["kubeconfig"]
    assert rpc.is_rpc_secret(given)
    assert rpc.unwrap_rpc_secret(given) == KUBECONFIG
    objects = [row.inputs for row in engine.declared if row.type != "pulumi:providers:kubernetes"]
    assert CANARY not in str(objects)
    assert not [row for row in objects if any(map(rpc.is_rpc_secret, row.values()))]


@pytest.mark.parametrize("key", ["serverEnv", "serverArgs"])
def test_git_is_no_place_for_a_secret(key: str, tmp_path: Path) -> None:
    told = {key: SERVER[key], "gitops": {"folder": str(tmp_path / "apps")}}
    with pytest.raises(InputError) as caught:
        load(key, delivery="gitops", **told)
    [problem] = caught.value.problems
    assert problem.key == f"modelcar:{key}"
    assert "Git is no place for it" in problem.value
    assert CANARY not in str(caught.value)
    # `render` of a stack that the program delivers: the same.
    with pytest.raises(InputError, match="Git is no place for it"):
        gitops.folders(load(key, **told), tmp_path)
    assert not (tmp_path / "apps").exists()


def test_git_is_no_place_for_one_in_a_list_of_models_either() -> None:
    own = {"model": None, "serviceName": None, "models": [{"name": "chat", **SERVER}]}
    with pytest.raises(InputError, match="modelcar:models: holds a Pulumi secret"):
        load("models", delivery="gitops", gitops={"folder": "apps"}, **own)
    # No file of a kubeconfig is written.
    assert load("kubeconfig", kubeconfig=KUBECONFIG, delivery="gitops", gitops={"folder": "apps"})


def test_operations_know_which_keys_are_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = {
        key: {"value": text, "secret": key.endswith("serverEnv")} for key, text in texts(**SERVER).items()
    }
    monkeypatch.setattr(operations_stack, "_pulumi", lambda *_: found)
    assert operations_stack.stack_of("dev", tmp_path).secrets.keys == {"serverEnv"}


def test_a_key_that_the_program_writes_in_the_clear_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    config = texts(servedModelName=CANARY, kubeContext=CANARY)
    monkeypatch.setenv("PULUMI_CONFIG", json.dumps(config))
    keys = ["modelcar:servedModelName", "modelcar:kubeContext"]
    monkeypatch.setattr(pulumi.runtime, "is_config_secret", keys.__contains__)
    with pytest.raises(InputError) as caught:
        configuration.from_pulumi(Path())
    assert {problem.key for problem in caught.value.problems} == set(keys)
    assert all("without --secret" in problem.fix for problem in caught.value.problems)
    assert CANARY not in str(caught.value)


def test_a_wrong_value_is_told_and_not_shown() -> None:
    with pytest.raises(InputError) as caught:
        load("serverArgs", serverArgs=[f"--max-model-len={CANARY}"])
    assert "modelcar:serverArgs: --max-model-len [secret]: not a number of tokens" in str(caught.value)
    with pytest.raises(InputError, match=CANARY):
        load(serverArgs=[f"--max-model-len={CANARY}"])


def marked(section: type[Section]) -> set[str]:
    return {name for name, field in section.model_fields.items() if MAY_HOLD_SECRETS in field.metadata}


def sections(above: type[Section] = Section) -> list[type[Section]]:
    return [one for below in above.__subclasses__() for one in (below, *sections(below))]


def test_what_may_hold_secrets_is_marked_by_whatever_name() -> None:
    assert marked(VllmServer) == marked(CustomServer) == {"command", "args", "env"}
    names = {Settings.model_fields[name].alias for name in marked(Settings)}
    assert names == {*OF_SERVER, "kubeconfig", "registryPassword"}


@pytest.mark.parametrize("value", [f"A={CANARY}", [f"A={CANARY}"], ["--api-key", 5, CANARY], {"A": [CANARY]}])
def test_no_message_shows_a_value_that_may_be_secret_and_is_of_a_wrong_type(value: Any) -> None:
    refused = 0
    for section in sections():
        for name in marked(section):
            with pytest.raises(InputError) as caught:
                section(**{name: value}, unknown=value)
            refused += f"{section.__name__}.{name}" in str(caught.value)
            assert CANARY not in str(caught.value), section
    assert refused


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ({"env": [f"VLLM_API_KEY={CANARY}"]}, "VllmServer.env: "),
        ({"env": {"VLLM_API_KEY": [CANARY]}}, "VllmServer.env.VLLM_API_KEY: "),
        ({"args": f"--api-key {CANARY}"}, "VllmServer.args: "),
        ({"args": ["--api-key", {CANARY}]}, r"VllmServer.args\[1\]: "),
        ({"command": f"TOKEN={CANARY} serve"}, "VllmServer.command: "),
    ],
)
def test_a_program_is_told_which_value_is_wrong_and_not_what_it_is(said: dict[str, Any], place: str) -> None:
    with pytest.raises(InputError, match=f"{place}not shown: it may hold secrets") as caught:
        VllmServer(image=STORAGE_URI.removeprefix("oci://"), **said)
    assert CANARY not in str(caught.value)


def test_what_is_told_of_a_failed_model_holds_no_secret() -> None:
    secrets = load("serverEnv", "serverArgs", **SERVER).secrets
    said = secrets.hide(f"chat: the server ended: bad key {CANARY!r} in VLLM_API_KEY={CANARY}; --api-key")
    assert CANARY not in said
    assert "--api-key" not in said or "[secret]" in said
    assert CANARY not in repr(secrets)
    assert Secrets().hide(CANARY) == CANARY


def test_nothing_else_of_a_list_of_models_is_taken_for_a_secret() -> None:
    own = {"model": None, "serviceName": None, "models": [{"name": "assistant", **SERVER}]}
    secrets = load("models", **own).secrets
    assert secrets.hide(f"model assistant: {CANARY}") == "model assistant: [secret]"


def test_what_an_import_changes_is_told_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(pulumi.log, "info", said.append)
    live = {"kind": "InferenceService", "metadata": {}, "spec": {"predictor": {"minReplicas": 2}}}
    predictor = {"minReplicas": 1, "containers": [{"name": "server", "args": ["--api-key", CANARY]}]}
    engine = Engine(preview=True)

    def program() -> dict[str, pulumi.Output[Any]]:
        [hook] = telling("chat").before_update or []
        new = {"kind": "InferenceService", "spec": pulumi.Output.secret({"predictor": predictor})}
        args = pulumi.ResourceHookArgs("urn", "id", "chat", "type", new, {"metadata": {}}, None, live)
        return {"done": pulumi.Output.from_input(hook.callback(args))}  # type: ignore[union-attr]

    engine.run(program)
    [text] = said
    assert "  ~ spec.predictor.minReplicas" in text
    assert "spec.predictor.containers" in text
    assert CANARY not in text


def test_the_page_names_the_keys_that_may_be_secrets() -> None:
    page = (Path(__file__).parents[2] / "docs/security.md").read_text()
    assert [key for key in sorted(KEPT) if f"`{key}`" not in page and f"`modelcar:{key}`" not in page] == []


# --- operations: what a server's log or a cluster's answer has in it


QUOTED = 'ca"na"ry-7f2c91'  # JSON writes its quotes otherwise
POD = {
    "metadata": {
        "name": "m-1",
        "namespace": "models",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"serving.kserve.io/inferenceservice": "m"},
    },
    "spec": {"containers": [{"name": "kserve-container"}]},
    "status": {"phase": "Running", "containerStatuses": []},
}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """A cluster whose server ended, and logged its arguments."""
    secret = load("serverArgs", serverArgs=["--api-key", QUOTED], namespace="models", serviceName="m")
    made = FakeCluster()
    made.lists["/api/v1/namespaces/models/pods"] = [POD]
    made.texts["kserve-container"] = f"INFO args: {{'api_key': {QUOTED}}}\nit ended\n"
    monkeypatch.setattr(operations, "stack_of", lambda *_: secret)
    monkeypatch.setattr(operations, "outputs_of", lambda *_: {})
    monkeypatch.setattr(operations, "cluster_of", lambda *_: made)
    return made


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_what_an_operation_prints_has_no_secret(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    assert operations.main(["validate", "--stack", "dev", *more]) == 1
    told = capsys.readouterr()
    assert "it ended" in told.out
    assert "[secret]" in told.out
    assert "7f2c91" not in told.out + told.err


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ClusterError(0, f"exec: {QUOTED}"), 1),
        (refuse("pod m-1", f"runs with {QUOTED}", allowed="x", fix="y"), 2),
    ],
)
def test_nor_have_its_errors(
    cluster: FakeCluster,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    status: int,
) -> None:
    def fails(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(operations, "cluster_of", fails)
    for command in ("validate", "chat", "kernels save", "coldstart"):
        if command.startswith("kernels"):
            monkeypatch.setattr(operations, "read_lock", lambda _: None)
        assert operations.main([*command.split(), "--stack", "dev"]) == status
        told = capsys.readouterr()
        assert "[secret]" in told.err
        assert "7f2c91" not in told.out + told.err


def test_nor_has_what_it_tells_meanwhile(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*_: Any, say: Any, **__: Any) -> tuple[()]:
        say(f"the server says {QUOTED}")
        raise KeyboardInterrupt

    monkeypatch.setattr("operations.validate.validate", told)
    assert operations.main(["validate", "--stack", "dev"]) == 130
    assert "the server says [secret]" in capsys.readouterr().err


def test_what_is_reached_by_a_secret_kubeconfig_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """`pulumi stack output` prints it, in `up` as in a preview."""
    monkeypatch.setattr("components.cluster.webhooks.await_answer", lambda *_, **__: None)
    monkeypatch.setattr("components.kserve.model_service.inference_service", lambda *_: None)
    monkeypatch.setattr("components.kserve.model_service.Cluster.of", lambda *_: FakeCluster())
    server, common = VllmServer(image=f"vllm/vllm-openai@{DIGEST}"), {"namespace": "models"}
    engine, told = Engine(preview=False, secrets=True), dict[str, pulumi.Output[Any]]()

    def program() -> dict[str, pulumi.Output[Any]]:
        access = ClusterAccess(pulumi.Output.secret(KUBECONFIG))
        at: Any = {**common, "access": access}
        pulled = PrePull(
            "pull", PrePullArgs(storage_uri=STORAGE_URI, server_image=server.image, service="chat", **at)
        )
        taken_over: dict[str, Any] = {"imports": ["InferenceService"], **at}
        for name, uri, more in (("chat", pulled.storage_uri, at), ("old", STORAGE_URI, taken_over)):
            args = ModelServiceArgs(storage_uri=uri, server=server, **more)
            service = ModelService(name, args)
            for output in ("name", "namespace", "storage_uri", "endpoint", "served_model_name"):
                told[f"{name}.{output}"] = getattr(service, output)
        told["pulled"] = pulled.storage_uri
        told["kserve"] = KServePlatform("kserve", KServePlatformArgs(access=access)).version
        return {name: pulumi.Output.from_input(output.is_secret()) for name, output in told.items()}

    secret = engine.run(program)
    assert len(secret) == 12
    assert not [name for name, is_one in secret.items() if is_one]
    assert engine.await_rolled_out.called
    assert engine.await_pulled.called
