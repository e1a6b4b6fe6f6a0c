"""Input that used to end in a traceback, or to show what it should not: it is told in words, and hidden."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pulumi
import pytest

from components.cluster.access import Cluster
from components.cluster.guard import ClusterAccess
from components.config.autoscaling import AutoscalingSettings
from components.config.checks.vllm import unfit
from components.config.cluster import DestinationSettings
from components.config.gitops import GitOpsSettings
from components.config.known_model import KnownModel
from components.config.kserve import KServeSettings
from components.config.models import load_stack
from components.config.scheduling import SchedulingSettings
from components.google.registry import ModelRegistryArgs
from components.image.modelcar_image import ModelcarImageArgs
from components.kserve.egress import EgressPolicyArgs
from components.kserve.model_service import ModelServiceArgs
from components.kserve.pull_access import PullAccessArgs
from components.kserve.server import ServerResources, VllmServer
from modelcar import __main__ as modelcar
from modelcar import connections, hub_address
from modelcar.docker_login import LoginError, login_of
from modelcar.errors import InputError
from modelcar.inspect_image import inspect
from modelcar.registry import Registry, Target, parse
from modelcar.strict_yaml import read
from modelcar.weights import read_weights
from operations import __main__ as operations
from operations import stack as operations_stack
from operations.arguments import parser
from tests import registry_server
from tests.unit.mocked_engine import Engine
from tests.unit.test_components_settings import load
from tests.unit.test_secrets import load as load_secret
from tests.unit.test_secrets import texts

LONG = "sk-" + "0123456789" * 20
DIGEST = "sha256:" + "a" * 64


# --- what is secret, or holds credentials


@pytest.mark.parametrize(
    ("key", "value", "secret"),
    [
        ("serverArgs", f"--api-key={LONG}", LONG[:8]),
        ("serverArgs", "--api-key=ab'cd\\ef\"ghijkl", "ghijkl"),
        ("serverArgs", [f"--max-model-len={LONG}"], LONG[:8]),
        ("serverCommand", f"serve {LONG}", LONG[:8]),
        ("vllm", {"quantization": [LONG]}, LONG[:8]),
        ("models", '[{"name":"a","serverEnv":["HF_TOKEN=hf_secretsecret"]', "hf_secret"),
        ("models", '{"serverEnv":["HF_TOKEN=hf_secretsecret"]}', "hf_secret"),
        ("models", [{"name": "a", "serverArgs": f"--api-key={LONG}"}], LONG[:8]),
        ("models", [{"name": "a", "vllm": {"quantization": [LONG]}}], LONG[:8]),
    ],
)
def test_no_message_shows_a_secret_cut_or_quoted(key: str, value: Any, secret: str) -> None:
    own = {"model": None, "serviceName": None} if key == "models" else {}
    with pytest.raises(InputError) as caught:
        load_secret(key, **own, **{key: value})
    assert f"modelcar:{key}" in str(caught.value)
    assert secret not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hubEndpoint", "https://user:hunter22@h"),
        ("mirrors", ["https://u:hunter22@h/x"]),
        ("registry", "https://u:hunter22@h/x"),
        ("gitops", {"folder": "x", "repository": "https://user:hunter22@github.com/a/b"}),
        ("gitops", {"folder": "x", "repository": "https://hunter22@github.com/a/b"}),
        ("gitops", {"folder": "x", "server": "https://user:hunter22@h"}),
        ("kserve", {"chartRepository": "oci://user:hunter22@h/charts"}),
        ("kserve", {"certManagerRepository": "https://user:hunter22@h/charts"}),
    ],
)
def test_credentials_in_an_address_are_refused_and_not_shown(key: str, value: Any) -> None:
    with pytest.raises(InputError, match=r"credentials|scheme") as caught:
        load(**{key: value})
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["git@github.com:a/b", "ssh://git@github.com/a/b", "https://github.com/a/b@c"]
)
def test_addresses_of_git_without_a_password_stay(address: str) -> None:
    assert GitOpsSettings(folder="x", repository=address).repository == address
    assert KServeSettings().chart_repository.startswith("oci://")


@pytest.mark.parametrize(
    "address",
    [
        "https://h:99999",
        "https://h:abc/x",
        "https://a b",
        "https://h/?x=1#f",
        "https://h/a b",
        "https://a..b",
    ],
)
def test_what_is_no_address_of_a_hub_is_refused(address: str) -> None:
    assert hub_address.fault_of_address(address)


@pytest.mark.parametrize(
    "address", ["https://huggingface.co", "https://h_1.x:8443/a/b", "http://[::1]:5", "http://localhost:80"]
)
def test_what_is_one_is_taken(address: str) -> None:
    assert hub_address.fault_of_address(address) is None


@pytest.mark.parametrize(
    ("host", "is_here"),
    [("127.0.0.2", True), ("192.0.2.1", False), ("0.0.0.0", False), ("hub.example", False)],
)
def test_plain_http_is_for_what_this_machine_asks_itself(host: str, is_here: bool) -> None:
    assert hub_address.fault_of_address(f"http://{host}:9")
    assert (hub_address.fault_of_address(f"http://{host}:9", asked_here=True) is None) is is_here


# --- arguments of components


def made(kind: type, **changes: Any) -> Any:
    """Arguments of a component, which are right but for the changes."""
    image = f"registry.example.com/models/chat@{DIGEST}"
    uri = {"storage_uri": f"oci://{image}", "namespace": "models"}
    place = {"project": "my-project", "region": "europe-west4", "reader": "nodes@p.iam.gserviceaccount.com"}
    right: dict[type, dict[str, Any]] = {
        ModelServiceArgs: {**uri, "server": VllmServer(image=image)},
        ModelcarImageArgs: {"lock": "a/model.lock", "registry": "registry.example.com/models"},
        EgressPolicyArgs: {"service": "chat", "namespace": "models"},
        ModelRegistryArgs: place,
        PullAccessArgs: {"service": "chat", "namespace": "models", "host": "registry.example.com"},
    }
    return kind(**{**right[kind], **changes})


@pytest.mark.parametrize(
    ("kind", "changes", "says", "allowed", "fix"),
    [
        (ModelServiceArgs, {"access": LONG}, "of type str", "ClusterAccess", "correct access"),
        (ModelServiceArgs, {"await_ready": "no"}, "'no'", "true or false", "get_bool"),
        (
            ModelServiceArgs,
            {"imports": ["InferenceServce"]},
            "'InferenceServce'",
            "InferenceService",
            "did you mean",
        ),
        (ModelServiceArgs, {"imports": ["NetworkPolicy"]}, "'NetworkPolicy'", "ServingRuntime", "choose one"),
        (ModelServiceArgs, {"imports": "InferenceService"}, "of type str", "a list of: ", "correct imports"),
        (
            ModelServiceArgs,
            {"server": {"env": {"KEY": LONG}}},
            "of type dict",
            "VllmServer or CustomServer",
            "server",
        ),
        (ModelServiceArgs, {"lock": 5}, "of type int", "a text or a path", "correct lock"),
        (ModelServiceArgs, {"namespace": None}, "None", "a text or an output", "correct namespace"),
        (EgressPolicyArgs, {"imports": ["X"]}, "'X'", "NetworkPolicy", "choose one of these"),
        (
            EgressPolicyArgs,
            {"settings": {"restrict": True}},
            "of type dict",
            "EgressSettings",
            "correct settings",
        ),
        (ModelcarImageArgs, {"insecure": "false"}, "'false'", "true or false", "get_bool"),
        (
            ModelcarImageArgs,
            {"mirrors": "registry.example.com/x"},
            "of type str",
            "a list of: a text",
            "mirrors",
        ),
        (ModelRegistryArgs, {"labels": ["a"]}, "of type list", "a text, by name", "correct labels"),
        (PullAccessArgs, {"password": [LONG]}, "of type list", "a text", "correct password"),
    ],
)
def test_an_argument_of_another_type_is_told_before_anything_is_declared(
    kind: type, changes: dict[str, Any], says: str, allowed: str, fix: str
) -> None:
    with pytest.raises(InputError) as caught:
        made(kind, **changes)
    [problem] = caught.value.problems
    assert problem.key == next(iter(changes))
    assert problem.value == says
    assert allowed in problem.allowed
    assert fix in problem.fix
    assert LONG[:8] not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"kubeconfig": 5}, "access.kubeconfig: of type int"),
        ({"kubeconfig": {"apiVersion": "v1"}}, "access.kubeconfig: of type dict"),
        ({"kubeconfig": " "}, "access.kubeconfig: "),
        ({"context": ["models"]}, "access.context: of type list"),
    ],
)
def test_a_cluster_that_cannot_be_asked_so_is_told_before_anything_is_declared(
    said: dict[str, Any], found: str
) -> None:
    with pytest.raises(InputError) as caught:
        ClusterAccess(**said)
    [problem] = caught.value.problems
    assert str(problem).startswith(found)
    assert "modelcar:" not in str(problem)


def test_a_kubeconfig_may_be_a_path() -> None:
    assert ClusterAccess(Path("/etc/kubeconfig")) == ClusterAccess("/etc/kubeconfig")


def test_arguments_of_the_right_types_are_taken() -> None:
    def program() -> dict[str, pulumi.Output[Any]]:
        later = pulumi.Output.from_input("x")
        assert made(
            ModelServiceArgs, namespace=later, imports={"InferenceService"}, start_timeout_seconds="60"
        )
        assert made(ModelServiceArgs, lock=Path("model.lock"), access=ClusterAccess("kubeconfig"), name=None)
        assert made(ModelRegistryArgs, labels={"team": later}, imports=("Repository",))
        assert made(ModelcarImageArgs, mirrors=["registry.example.com/x"])
        return {}

    Engine(preview=True).run(program)


def keys(caught: pytest.ExceptionInfo[InputError]) -> list[str]:
    return [problem.key for problem in caught.value.problems]


def test_keys_of_maps_are_told_as_they_were_written() -> None:
    with pytest.raises(InputError) as caught:
        VllmServer(image=f"a/b@{DIGEST}", env={"HF_HOME": 1, "MyVar": None})
    assert keys(caught) == ["VllmServer.env.HF_HOME", "VllmServer.env.MyVar"]
    assert caught.value.problems[0].fix == "correct VllmServer.env.HF_HOME"
    with pytest.raises(InputError) as caught:
        SchedulingSettings(
            nodeSelector={"Disk.Type": 5}, tolerations=[{"tolerationSeconds": "x", "Kye": "a"}]
        )
    assert keys(caught) == [
        "SchedulingSettings.node_selector.Disk.Type",
        "SchedulingSettings.tolerations[0].toleration_seconds",
        "SchedulingSettings.tolerations[0].Kye",
    ]


def test_what_a_program_is_told_has_no_settings_of_a_stack_in_it() -> None:
    with pytest.raises(InputError, match=r"fix: add one, or remove autoscaling$"):
        AutoscalingSettings(triggers=[])
    with pytest.raises(
        InputError, match=r"resources.cpu_limit: .*\n.*at least resources.cpu\n.*raise resources.cpu_limit"
    ):
        made(ModelServiceArgs, resources=ServerResources(cpu="4", cpu_limit="2")).spec("chat")


# --- a model's configuration and the server's arguments

LENGTH = {"max_position_embeddings": 32768, "num_attention_heads": 14}


@pytest.mark.parametrize(
    "config",
    [
        {"rope_scaling": {"rope_type": "yarn", "factor": 1e308}},
        {"rope_scaling": {"rope_type": "yarn", "factor": 10**400}},
        {"rope_scaling": {"rope_type": "linear", "factor": 0}},
        {"rope_scaling": {"rope_type": "linear", "factor": -2}},
        {"rope_scaling": {"rope_type": "linear", "factor": 1e-300}},
        {"rope_scaling": {"rope_type": ["yarn"], "factor": 2}},
        {"max_position_embeddings": 0},
        {"max_position_embeddings": -1},
        {"max_position_embeddings": 10**400, "rope_scaling": {"rope_type": "linear", "factor": 1.5}},
        {"num_attention_heads": True},
    ],
)
def test_an_odd_configuration_says_no_length(config: dict[str, Any]) -> None:
    settings = load(vllm={"maxModelLen": 1000}, gpuCount=1)
    assert list(unfit(settings, KnownModel({"config.json": ""}, {"config.json": {**LENGTH, **config}}))) == []


@pytest.mark.parametrize("value", ["0", "-1"])
def test_no_parallel_value_below_one(value: str) -> None:
    with pytest.raises(InputError, match=rf"serverArgs: --tensor-parallel-size {value}\n.*1 or more"):
        load(serverArgs=[f"--tensor-parallel-size={value}"], gpuCount=0)


def test_odd_arguments_end_in_words() -> None:
    assert load(serverArgs=["--hf-overrides.a", "1", "--hf-overrides.a+", "b"])
    with pytest.raises(InputError, match="--speculative-config: nested too deeply"):
        load(serverArgs=["--speculative-config", "[" * 100_000])


@pytest.mark.parametrize("value", ["9" * 5000, "\u0663", "0"])
def test_a_number_of_models_at_a_time_is_one_in_ascii(value: str) -> None:
    with pytest.raises(InputError, match="modelcar:parallelBuilds"):
        load_stack(texts(parallelBuilds=value), Path("/nowhere"))


def test_a_key_file_with_a_nul_is_no_file() -> None:
    with pytest.raises(InputError, match=r"signature\.publicKey: a.*null"):
        load_stack(texts(signature={"publicKey": "a\0b"}), Path("/nowhere"))


# --- registries


@pytest.mark.parametrize(
    "body",
    [
        b"text",
        b"",
        b"null",
        b"[1]",
        b'{"a": "\xff"}',
        b"[" * 100_000,
        b'{"layers": 5, "config": {}}',
        b'{"layers": [5], "config": {}}',
        b'{"layers": [{"digest": "x", "size": "1"}]}',
        b'{"manifests": 5}',
        b'{"annotations": [1]}',
        b'{"config": 5}',
    ],
)
def test_what_is_no_manifest_is_told(body: bytes) -> None:
    with registry_server.serve() as server:
        server.manifests["v1"] = (body, "application/vnd.oci.image.manifest.v1+json")
        server.has_referrers = False
        server.manifests[DIGEST.replace(":", "-")] = (body, "application/vnd.oci.image.index.v1+json")
        for ask in (lambda it: inspect(it, "v1"), lambda it: it.referrers(DIGEST)):
            _refused(server, ask)


def _refused(server: registry_server.Registry, ask: Callable[[Registry], Any]) -> None:
    registry = Registry(Target(f"{server.host}/models", "x", insecure=True))
    with pytest.raises(InputError, match="this is not a registry"), registry:
        ask(registry)


@pytest.mark.parametrize(
    ("path", "body", "ask"),
    [
        ("/tags/list", {"tags": 5}, Registry.tagged),
        ("/tags/list", {"tags": "abc"}, Registry.tagged),
        ("/referrers/", {"manifests": 5}, lambda it: it.referrers(DIGEST)),
        ("/referrers/", {"manifests": [5]}, lambda it: it.referrers(DIGEST)),
    ],
)
def test_what_is_no_list_is_told(path: str, body: Any, ask: Callable[[Registry], Any]) -> None:
    with registry_server.serve() as server:
        answer = (200, {"Content-Type": "application/json"}, json.dumps(body).encode())
        server.instead = lambda _, asked: answer if path in asked else None
        _refused(server, ask)


@pytest.mark.parametrize("body", [json.dumps({"token": "\u00fc"}), json.dumps({"token": [1]}), "[" * 100_000])
def test_what_is_no_token_is_told(body: str) -> None:
    with registry_server.serve("Bearer") as server:
        answer = (200, {"Content-Type": "application/json"}, body.encode())
        server.instead = lambda _, asked: answer if "/token" in asked else None
        _refused(server, lambda it: it.manifest("v1"))


@pytest.mark.parametrize(
    "reference",
    ["a..b/x:v1", "..:5/x", "./x", "h/..:v1", "localhost:99999/x", "h:0/x", "a/b//c", "\u00fc.de/x"],
)
def test_no_reference_that_no_registry_could_have(reference: str) -> None:
    with pytest.raises(InputError, match="reference: "):
        parse(reference)


@pytest.mark.parametrize("url", ["https://a..b/x", "https://h:99999/x"])
def test_a_host_that_cannot_be_asked_for_is_a_failed_connection(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with connections.client() as client, pytest.raises(httpx.TransportError):
        client.get(url)


# --- files of this machine


@pytest.mark.parametrize(
    "content",
    [
        "current-context: a\n".encode("utf-16"),
        b"a: \xff\n",
        b"contexts: [{name: [1]}]\n",
        b"current-context: {a: 1}\n",
        b"clusters: [5]\n",
        b"a: !!bool x\n",
    ],
)
def test_a_kubeconfig_is_named_that_is_none(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "some"
    path.write_bytes(content)
    with pytest.raises(InputError, match=str(path)):
        Cluster.of(DestinationSettings(kubeconfig=str(path)))
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(InputError, match=str(path)):
        Cluster.of(DestinationSettings())


def test_a_kubeconfig_with_odd_parts_is_refused() -> None:
    text = json.dumps(
        {
            "clusters": [{"name": "c", "cluster": {"server": 5}}],
            "contexts": [{"name": "a", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {"token": "x"}}],
            "current-context": "a",
        }
    )
    with pytest.raises(InputError, match="modelcar:kubeconfig: it is not as kubectl writes it"):
        Cluster.of(DestinationSettings(kubeconfig=text))


@pytest.mark.parametrize("setting", ["token: hf_secret", "c2VjcmV0" * 100, "a\0hf_secret"])
def test_a_kubeconfig_that_is_taken_for_a_path_is_not_shown(setting: str) -> None:
    with pytest.raises(InputError, match="modelcar:kubeconfig: the file that it names: ") as caught:
        Cluster.of(DestinationSettings(kubeconfig=setting))
    assert setting not in str(caught.value)


@pytest.mark.parametrize("content", ["[]", '{"credHelpers": 5}'])
def test_a_configuration_of_docker_is_named(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(LoginError, match=str(tmp_path / "config.json")):
        login_of("h.example")


def folder(at: Path, config: bytes, shape: list[int] | None = None) -> Path:
    at.mkdir()
    header = json.dumps({"w": {"dtype": "X", "shape": shape or [4], "data_offsets": [0, 4]}}).encode()
    (at / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"abcd")
    (at / "tokenizer.json").write_text("{}")
    (at / "config.json").write_bytes(config)
    return at


@pytest.mark.parametrize("config", [b"\xef\xbb\xbf{}", '{"model_type": "a"}'.encode("utf-16")])
def test_a_configuration_that_transformers_cannot_read_is_refused(config: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json: not JSON"):
        read_weights(folder(tmp_path / "m", config))


def test_check_shows_names_without_what_acts_on_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"model_type": "qwen2", "architectures": ["\x1b[2JX"], "dtype": "\x1b[31m"}
    assert modelcar.main(["check", str(folder(tmp_path / "m", json.dumps(config).encode()))]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "[2JX" in out


def test_a_tensor_of_more_numbers_than_any_file_is_broken(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="more numbers than any file"):
        read_weights(folder(tmp_path / "m", b'{"model_type": "a"}', [10**300] * 40))


def test_a_folder_with_a_nul_is_no_folder() -> None:
    with pytest.raises(InputError, match="no path"):
        read_weights(Path("a\0b"))


@pytest.mark.parametrize("text", ["a: !!bool x", "a: !!timestamp x"])
def test_a_value_that_is_not_its_tags_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match="not what its tag says"):
        read(tmp_path / "a.yaml", "a lock", "write it again")


# --- operations


@pytest.mark.parametrize(
    "options",
    [
        *(["smoke", "--stack", "d", "--patience", text] for text in ("nan", "inf", "-5", "0", "x")),
        *(["chat", "--stack", "d", "--tokens", text] for text in ("-5", "0", "\u0663", "9" * 5000)),
        ["validate", "--stack", ""],
        ["validate", "--stack", "d", "--model", ""],
    ],
)
def test_unfit_options_are_told(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser(Path()).parse_args(options)
    assert f"argument {options[-2]}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [("--revision", ""), ("--repository", ""), ("--repository", "https://u:hunter22@h/a")],
)
def test_render_names_its_own_option(
    option: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(operations, "stack_of", lambda *_: load_secret())
    assert operations.main(["render", "--stack", "d", "--out", str(tmp_path), option, value]) == 2
    told = capsys.readouterr().err
    assert f"\n{option}: " in told
    assert "hunter22" not in told


@pytest.mark.parametrize(
    ("answer", "says"),
    [("no JSON", "answers no JSON object"), ("[]", "no JSON object"), ('{"models": 5}', "output models")],
)
def test_an_odd_answer_of_pulumi_is_told(
    answer: str, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done = subprocess.CompletedProcess([], 0, answer, "")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: done)
    with pytest.raises(InputError, match=says):
        operations_stack.outputs_of("dev", tmp_path)


def test_outputs_of_a_stack_that_is_deployed_just_now_are_read_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    early = subprocess.CompletedProcess([], 255, "", "error: failed to load checkpoint: EOF\n")
    answers = iter([early, early, subprocess.CompletedProcess([], 0, '{"serviceName": "chat"}', "")])
    monkeypatch.setattr("subprocess.run", lambda *_, **__: next(answers))
    monkeypatch.setattr("operations.stack.PAUSE", 0.0)
    assert operations_stack.outputs_of("dev", tmp_path) == {"serviceName": "chat"}
    monkeypatch.setattr("subprocess.run", lambda *_, **__: early)
    with pytest.raises(InputError, match="failed to load checkpoint: EOF"):
        operations_stack.outputs_of("dev", tmp_path)
