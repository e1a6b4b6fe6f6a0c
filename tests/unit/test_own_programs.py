"""Components in a program without a stack's settings: typed arguments, and outputs of other resources."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import subprocess
import sys
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes
import pytest

from components.cluster.guard import ClusterAccess
from components.config.autoscaling import AutoscalingSettings
from components.config.checks.models import runtime_differences
from components.config.network import EgressSettings, IngressSettings
from components.config.scheduling import SchedulingSettings, Toleration
from components.config.signature import SignatureSettings
from components.google.node_account import NodeServiceAccount, NodeServiceAccountArgs
from components.image.modelcar_image import ModelcarImage, ModelcarImageArgs
from components.kserve.autoscaler import Autoscaler, AutoscalerArgs
from components.kserve.egress import EgressPolicy, EgressPolicyArgs
from components.kserve.ingress import IngressPolicy, IngressPolicyArgs
from components.kserve.kserve_platform import KServePlatform, KServePlatformArgs
from components.kserve.model_service import ModelService, ModelServiceArgs
from components.kserve.pre_pull import PrePull, PrePullArgs
from components.kserve.pull_access import PullAccess, PullAccessArgs
from components.kserve.server import CustomServer, ServerResources, VllmServer
from components.kserve.shared_runtime import SharedRuntime, SharedRuntimeArgs
from modelcar.base import read_base
from modelcar.errors import InputError
from modelcar.image import modelcar_image
from tests.conftest import PROJECT
from tests.unit.mocked_engine import DIGEST, UNKNOWN, Engine
from tests.unit.test_components_image_and_service import LOCK

SERVER = VllmServer(image=f"vllm/vllm-openai:v0.23.0@{DIGEST}")
URI = f"oci://registry.example.com/models/chat@{DIGEST}"
ACCESS = ClusterAccess()


def service(**more: Any) -> ModelServiceArgs:
    arguments: dict[str, Any] = {"storage_uri": URI, "namespace": "models", "server": SERVER} | more
    return ModelServiceArgs(**arguments)


class Team(pulumi.ComponentResource):
    """A component of somebody else's, with a model that is called as those of other teams."""

    endpoint: pulumi.Output[str]
    model: pulumi.Output[str]

    def __init__(self, name: str) -> None:
        super().__init__(f"acme:teams:{name.capitalize()}", name)
        own = pulumi.ResourceOptions(parent=self)
        space = kubernetes.core.v1.Namespace("chat", metadata={"name": name}, opts=own)
        place: dict[str, Any] = {"service": "chat", "namespace": space.metadata.name, "access": ACCESS}
        EgressPolicy("chat", EgressPolicyArgs(**place), own)
        gateway = IngressSettings(namespaces=("gateway",))
        IngressPolicy("chat", IngressPolicyArgs(**place, settings=gateway), own)
        triggers: Any = [{"type": "cron", "timezone": "UTC", "start": "0 8 * * *", "end": "0 9 * * *"}]
        triggers[0]["desired_replicas"] = 1
        scaling = AutoscalingSettings(triggers=triggers)
        Autoscaler("chat", AutoscalerArgs(**place, scaling=scaling, max_replicas=2), own)
        SharedRuntime(
            "chat", SharedRuntimeArgs(namespace=name, name="vllm", server=SERVER, access=ACCESS), own
        )
        NodeServiceAccount("chat", NodeServiceAccountArgs(project="my-project", purpose=name), own)
        ModelcarImage("chat", ModelcarImageArgs(lock=LOCK, registry=f"registry.example.com/{name}"), own)
        served = service(namespace=space.metadata.name, access=ACCESS)
        made = ModelService("chat", served, own)
        self.endpoint, self.model = made.endpoint, made.served_model_name


@pytest.mark.parametrize("preview", [True, False])
@pytest.mark.parametrize("teams", [["search"], ["search", "support"]])
def test_all_components_of_a_model_may_have_its_name(preview: bool, teams: list[str]) -> None:
    """Those below parents of other types too: the engine refuses a second hook of one name."""
    engine = Engine(preview=preview)

    def program() -> dict[str, pulumi.Output[Any]]:
        made = [Team(name) for name in teams]
        return {
            name: pulumi.Output.all(one.model, one.endpoint) for name, one in zip(teams, made, strict=True)
        }

    told = engine.run(program, modelcar_image(LOCK, read_base("amd64")).digest)
    for name in teams:
        wanted = ["chat", f"http://chat-predictor.{name}.svc.cluster.local"]
        assert told[name] == wanted or (preview and told[name] == UNKNOWN)
    services = [one for one in engine.declared if one.type.endswith(":InferenceService")]
    hooks = {
        re.findall("acme:teams:([A-Za-z]+)", one.parent)[0].lower(): one.before_update for one in services
    }
    assert hooks.pop("search") == ("taken-over-chat",), "as versions before: the state has the name"
    assert list(hooks.values()) == [("taken-over-chat#2",)] * (len(teams) - 1)


@pytest.mark.parametrize("how", ["one", "several", "a list with one"])
@pytest.mark.parametrize("preview", [True, False])
def test_what_a_component_depends_on_may_be_an_output(preview: bool, how: str) -> None:
    engine = Engine(preview=preview)

    def program() -> dict[str, pulumi.Output[Any]]:
        space = kubernetes.core.v1.Namespace("space", metadata={"name": "models"})
        other = kubernetes.core.v1.Namespace("other", metadata={"name": "other"})
        later: pulumi.Output[Any] = space.urn.apply(lambda _: [space, other] if how == "several" else space)
        waits: Any = [later, other] if how == "a list with one" else later
        options = pulumi.ResourceOptions(depends_on=waits)
        return {"name": ModelService("chat", service(), options).name}

    engine.run(program)
    waited = {one.urn.rpartition(":")[2] for one in engine.declared if one.type.endswith(":Namespace")}
    waited -= {"other"} if how == "one" else set()
    for kind in ("ServingRuntime", "InferenceService"):
        found = {urn.rpartition(":")[2] for urn in engine.the(kind).dependencies}
        assert found == waited | ({"chat-runtime"} if kind == "InferenceService" else set())


OF_CHAT: dict[str, Any] = {"service": "chat", "namespace": "models"}
TRIGGER: Any = {
    "type": "cron",
    "timezone": "UTC",
    "start": "0 8 * * *",
    "end": "0 9 * * *",
    "desired_replicas": 1,
}
COMPONENTS: list[tuple[Any, Any]] = [
    (EgressPolicy, EgressPolicyArgs(**OF_CHAT)),
    (IngressPolicy, IngressPolicyArgs(**OF_CHAT, settings=IngressSettings(namespaces=("gateway",)))),
    (PullAccess, PullAccessArgs(**OF_CHAT, host="registry.example.com", username="u", password="p")),
    (PrePull, PrePullArgs(**OF_CHAT, storage_uri=URI, server_image=SERVER.image)),
    (Autoscaler, AutoscalerArgs(**OF_CHAT, scaling=AutoscalingSettings(triggers=(TRIGGER,)), max_replicas=2)),
    (SharedRuntime, SharedRuntimeArgs(namespace="models", name="vllm", server=SERVER)),
    (KServePlatform, KServePlatformArgs()),
    (ModelcarImage, ModelcarImageArgs(lock=LOCK, registry="registry.example.com/models")),
    (NodeServiceAccount, NodeServiceAccountArgs(project="my-project", purpose="chat")),
]


@pytest.mark.parametrize(("component", "args"), COMPONENTS, ids=lambda one: getattr(one, "__name__", ""))
def test_all_of_a_component_waits_for_what_it_depends_on(component: Any, args: Any) -> None:
    engine = Engine(preview=False)

    def program() -> dict[str, pulumi.Output[Any]]:
        first = kubernetes.core.v1.Namespace("first", metadata={"name": "first"})
        component("chat", args, pulumi.ResourceOptions(depends_on=[first]))
        return {}

    engine.run(program, modelcar_image(LOCK, read_base("amd64")).digest)
    own = [
        one
        for one in engine.declared
        if one.urn.rpartition(":")[2] != "first" and "modelcar:" not in one.type
    ]
    assert own
    assert not [one.urn for one in own if not any(urn.endswith("::first") for urn in one.dependencies)]


def test_each_run_of_a_process_has_its_names_anew() -> None:
    for _ in range(2):
        engine = Engine(preview=True)
        engine.run(lambda: {"name": ModelService("chat", service()).name})
        assert set(engine.hooks) == {"taken-over-chat"}


def test_all_hooks_have_names_of_their_own() -> None:
    made = re.compile(r"pulumi\.(ResourceHook|ErrorHook)\(")
    found = [path for path in (PROJECT / "components").rglob("*.py") if made.search(path.read_text())]
    assert found == [PROJECT / "components/engine/hooks.py"], "by its functions"


WRONG_URIS = {
    "oci://registry.example.com/models/chat:latest": r"(?s)storage_uri: .*: a tag, .*imagetools inspect",
    "s3://bucket/chat": r"(?s)storage_uri: 's3://bucket/chat'\n    allowed: oci://REGISTRY/NAME@sha256:",
    f"registry.example.com/models/chat@{DIGEST}": "storage_uri: 'registry",
    "oci://registry.example.com/models/chat@sha256:abc": "storage_uri: 'oci",
}


def pulled(uri: pulumi.Input[str], **more: Any) -> PrePull:
    arguments: dict[str, Any] = {"server_image": SERVER.image, "service": "chat", "namespace": "models"}
    return PrePull("chat", PrePullArgs(storage_uri=uri, **(arguments | more)))


def served(uri: pulumi.Input[str]) -> ModelService:
    return ModelService("chat", service(storage_uri=uri))


@pytest.mark.parametrize("declare", [served, pulled])
@pytest.mark.parametrize("uri", WRONG_URIS)
def test_only_an_image_by_digest_is_served_or_pulled(uri: str, declare: Any) -> None:
    engine = Engine(preview=True)
    with pytest.raises(InputError, match=WRONG_URIS[uri]):
        engine.run(lambda: {"uri": declare(uri).storage_uri})
    engine = Engine(preview=False)
    with pytest.raises(pulumi.RunError, match=WRONG_URIS[uri]):
        engine.run(lambda: {"uri": declare(pulumi.Output.from_input(uri)).storage_uri})
    kinds = {one.type.rpartition(":")[2] for one in engine.declared}
    assert not kinds & {"InferenceService", "DaemonSet"}


@pytest.mark.parametrize("declare", [served, pulled])
def test_an_image_that_is_known_later_is_waited_for(declare: Any) -> None:
    def program(uri: Any) -> dict[str, pulumi.Output[Any]]:
        return {"uri": declare(pulumi.Output.from_input(uri)).storage_uri}

    assert Engine(preview=True).run(lambda: program(pulumi.UNKNOWN)) == {"uri": UNKNOWN}
    assert Engine(preview=False).run(lambda: program(URI)) == {"uri": URI}


def test_a_service_that_is_imported_is_served_from_where_it_is() -> None:
    engine = Engine(preview=True)
    args = service(storage_uri="s3://bucket/chat", imports=["InferenceService"])
    engine.run(lambda: {"name": ModelService("chat", args).name})
    assert (
        engine.the("InferenceService").inputs["spec"]["predictor"]["model"]["storageUri"] == args.storage_uri
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"server_image": "vllm/vllm-openai:latest"}, "server_image: 'vllm/vllm-openai:latest': names an"),
        ({"service": "Chat"}, "service: 'Chat': KServe refuses"),
        ({"gpus": 99}, r"(?s)gpus: 99\n.*fix: correct gpus$"),
        (
            {"scheduling": SchedulingSettings(tolerations=(Toleration(operator="Equal", value="x"),))},
            r"scheduling\.tolerations\[0\]\.key: not set",
        ),
        ({"node_pool": "Gpu"}, "node_pool: 'Gpu': Kubernetes refuses"),
        ({"service_account": "Puller"}, r"(?s)service_account: 'Puller': Kubernetes.*kubectl get service"),
    ],
)
def test_what_is_pulled_beforehand_is_checked_as_what_is_served(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Engine(preview=True).run(lambda: {"uri": pulled(URI, **wrong).storage_uri})


def scaling(address: str | None = "http://prometheus:9090", **trigger: Any) -> AutoscalingSettings:
    triggers: Any = [{"type": "requests", **trigger}]
    return AutoscalingSettings(triggers=triggers, server_address=address)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"min_replicas": 5, "max_replicas": 1}, "max_replicas: 1, below minReplicas 5"),
        ({"max_replicas": 1}, "scaling: set, with minReplicas and maxReplicas 1: there is nothing to scale"),
        ({"max_replicas": 0}, "max_replicas: 0"),
        ({"service": "Chat"}, "service: 'Chat'"),
        (
            {"scaling": scaling()},
            r"(?s)scaling\.triggers\[0\]\.threshold: not set.*fix: set scaling\.triggers",
        ),
        ({"scaling": scaling(None, threshold=1.0)}, r"(?s)scaling\.server_address: .* to http://prometheus"),
        ({"min_replicas": 0}, r"scaling\.triggers: requests, with minReplicas 0"),
    ],
)
@pytest.mark.parametrize("later", [False, True])
def test_an_autoscaler_keeps_what_can_be_kept(wrong: dict[str, Any], said: str, later: bool) -> None:
    def program(**more: Any) -> dict[str, pulumi.Output[Any]]:
        namespace = pulumi.Output.from_input("models") if later else "models"
        right: dict[str, Any] = {"service": "chat", "scaling": scaling(threshold=4.0), "max_replicas": 4}
        return {"name": Autoscaler("chat", AutoscalerArgs(**(right | {"namespace": namespace} | more))).name}

    engine = Engine(preview=False)
    engine.run(program)
    [trigger] = engine.the("ScaledObject").inputs["spec"]["triggers"]
    assert 'namespace="models"' in trigger["metadata"]["query"]
    with pytest.raises(InputError, match=said):
        Engine(preview=False).run(lambda: program(**wrong))


@pytest.mark.parametrize(
    ("declare", "key"),
    [
        (lambda name, space: ModelService(name, service(namespace=space)), "name"),
        (
            lambda name, space: Autoscaler(
                name,
                AutoscalerArgs(service=name, namespace=space, scaling=scaling(threshold=4.0), max_replicas=4),
            ),
            "service",
        ),
    ],
)
def test_a_services_host_is_looked_at_with_the_namespace_that_it_gets(declare: Any, key: str) -> None:
    def program(name: str, space: str) -> dict[str, pulumi.Output[Any]]:
        return {"name": declare(name, pulumi.Output.from_input(space)).name}

    longest = "a" * 51
    assert Engine(preview=False).run(lambda: program(longest, "n")) == {"name": longest}
    engine = Engine(preview=False)
    with pytest.raises(pulumi.RunError, match=rf"{key}: a+ gives the host label a+-predictor-nn \(64 char"):
        engine.run(lambda: program(longest, "nn"))
    kinds = {one.type.rpartition(":")[2] for one in engine.declared}
    assert not kinds & {"InferenceService", "ScaledObject"}


def test_a_shared_runtime_has_no_host() -> None:
    args = SharedRuntimeArgs(namespace="models", server=SERVER)
    assert args.spec("a" * 63).service_name == "a" * 63
    with pytest.raises(InputError, match=r"(?s)name: 'a+': KServe refuses.*at most 63 characters"):
        args.spec("a" * 64)


def test_a_policy_that_restricts_nothing_is_left_out() -> None:
    args = EgressPolicyArgs(service="chat", namespace="models", settings=EgressSettings(restrict=False))
    engine = Engine(preview=True)
    with pytest.raises(InputError, match=r"(?s)settings\.restrict: False.*fix: leave the component out"):
        engine.run(lambda: {"name": EgressPolicy("chat", args).name})
    assert not [one for one in engine.declared if one.type.endswith(":NetworkPolicy")]


def pulling(**more: Any) -> Engine:
    engine = Engine(preview=False)
    place: dict[str, Any] = {"service": "chat", "namespace": "models", "host": "registry.example.com"}

    def program() -> dict[str, pulumi.Output[Any]]:
        said: dict[str, Any] = {
            name: pulumi.Output.from_input(value.value) if isinstance(value, Later) else value
            for name, value in more.items()
        }
        return {"account": PullAccess("chat", PullAccessArgs(**{**place, **said})).service_account}

    engine.run(program)
    return engine


@dataclasses.dataclass(frozen=True)
class Later:
    """An output of another resource."""

    value: Any


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({}, "none"),
        ({"username": "", "password": None}, "none"),
        ({"username": "me"}, "username"),
        ({"password": Later("word")}, "password"),
        ({"secret": "there", "username": "me", "password": "word"}, "password, secret, username"),
        ({"secret": Later("there"), "username": "me"}, "secret, username"),
    ],
)
def test_a_right_to_pull_is_one_secret_or_one_users(said: dict[str, Any], found: str) -> None:
    with pytest.raises(InputError, match=rf"secret, username, password: set: {found}\n") as refused:
        pulling(**said)
    assert "word" not in str(refused.value).replace("password", "")


USER = {"username": "me", "password": "word"}


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"secret": "Pull_Secret"}, "secret: 'Pull_Secret': Kubernetes refuses this name"),
        ({**USER, "host": "registry"}, "host: 'registry': names no registry"),
        ({**USER, "host": "me@registry.example.com"}, "host: .*: not a registry's host"),
    ],
)
def test_secret_and_host_are_names_that_pods_can_pull_by(
    said: dict[str, Any], found: str, later: bool
) -> None:
    key = "secret" if "secret" in said else "host"
    with pytest.raises((InputError, pulumi.RunError), match=found):
        pulling(**{**said, key: Later(said[key]) if later else said[key]})


@pytest.mark.parametrize("host", ["https://index.docker.io/v1/", "*.example.com", "localhost:5000", "r.io/a"])
def test_a_host_may_be_as_dockers_configuration_has_it(host: str) -> None:
    assert pulling(**USER, host=host).the("Secret")


@pytest.mark.parametrize("wrong", ["service", "namespace"])
@pytest.mark.parametrize("policy", [EgressPolicy, IngressPolicy, PullAccess])
def test_the_pods_of_an_object_are_those_of_a_service_that_can_be(policy: Any, wrong: str) -> None:
    place: dict[str, Any] = {"service": "chat", "namespace": "models", wrong: "Chat"}
    args: dict[Any, Any] = {
        EgressPolicy: lambda: EgressPolicyArgs(**place, settings=EgressSettings(restrict=True)),
        IngressPolicy: lambda: IngressPolicyArgs(**place, settings=IngressSettings(namespaces=("a",))),
        PullAccess: lambda: PullAccessArgs(**place, host="r.example.com", secret="there"),
    }
    engine = Engine(preview=True)
    with pytest.raises(InputError, match=f"{wrong}: 'Chat': K(Serve|ubernetes) refuses this name"):
        engine.run(lambda: {"urn": policy("chat", args[policy]()).urn})


@pytest.mark.parametrize("later", [False, True])
def test_a_service_account_has_a_name_that_kubernetes_takes(later: bool) -> None:
    def program() -> dict[str, pulumi.Output[Any]]:
        account: Any = pulumi.Output.from_input("Puller") if later else "Puller"
        return {"uri": ModelService("chat", service(service_account=account)).storage_uri}

    with pytest.raises((InputError, pulumi.RunError), match="service_account: 'Puller': Kubernetes refuses"):
        Engine(preview=True).run(program)


def test_a_user_that_turns_out_to_be_none_is_refused() -> None:
    with pytest.raises(pulumi.RunError, match="username, password: an output without a value"):
        pulling(username=Later(None), password=Later("word"))


@pytest.mark.parametrize("said", [{"secret": "there"}, {"secret": Later("there"), "username": None}])
def test_a_secret_that_is_there_is_used(said: dict[str, Any]) -> None:
    engine = pulling(**said)
    assert engine.the("ServiceAccount").inputs["imagePullSecrets"] == [{"name": "there"}]
    assert not [one for one in engine.declared if one.type.endswith(":Secret")]


def test_a_users_secret_is_made() -> None:
    [secret] = [
        one.inputs["data"][".dockerconfigjson"]
        for one in pulling(username=Later("me"), password=Later("word"), secret="").declared
        if one.type.endswith(":Secret")
    ]
    [login] = json.loads(base64.b64decode(secret))["auths"].values()
    assert base64.b64decode(login["auth"]) == b"me:word"


def test_a_mode_that_kserve_does_not_know_is_refused() -> None:
    wrong: Any = "knative"
    with pytest.raises(InputError, match=r"mode: 'knative'\n.*\n    fix: did you mean Knative\?"):
        KServePlatformArgs(mode=wrong).settings()
    assert KServePlatformArgs(mode="Knative").settings()


def test_no_component_finds_a_placement_out() -> None:
    with pytest.raises(InputError, match=r"placement: auto\n    allowed: servingRuntime, storageUriEnv"):
        service(placement="auto").spec("chat")


def image(**more: Any) -> ModelcarImageArgs:
    arguments: dict[str, Any] = {"lock": None, "registry": "registry.example.com/models", "name": "chat"}
    return ModelcarImageArgs(**(arguments | more))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"fetch_on": "bulider"}, r"fetch_on: 'bulider'\n    allowed: .*\n    fix: did you mean builder\?"),
        (
            {"fetch_on": "builder"},
            r"fetch_on: builder, and no .*\n    allowed: .*\n    fix: set builder to NAME",
        ),
        ({"architecture": "arm"}, r"architecture: 'arm'\n    allowed: 'amd64' or 'arm64'"),
        ({"hub_endpoint": "http://hub.example.com"}, r"(?s)hub_endpoint: .*: not the address of a hub"),
        ({"builder": "--help"}, "builder: '--help': not a builder's name"),
        ({"mirrors": ("https://r.example.com/x",)}, r"mirrors\[0\]: .*: has a scheme"),
        ({"signature": SignatureSettings()}, "signature: neither publicKey nor identity"),
        ({"signature": SignatureSettings(identity="me@example.com")}, r"signature\.issuer: not set"),
        (
            {"signature": SignatureSettings(public_key="cosign.pub", identity="a", issuer="https://b")},
            "signature: both publicKey and identity",
        ),
    ],
)
def test_what_an_image_is_made_of_goes_together(wrong: dict[str, Any], said: str) -> None:
    assert image().resolved()
    with pytest.raises(InputError, match=said):
        image(**wrong).resolved()
    with pytest.raises(InputError, match=f"(?s){said}.*name: 'Chat'"):
        image(**wrong, name="Chat").resolved()


@pytest.mark.parametrize("later", [False, True])
def test_a_builder_that_fetches_has_mirrors_of_the_registry_only(later: bool) -> None:
    place = "registry.example.com/models"

    def program(mirror: str) -> dict[str, pulumi.Output[Any]]:
        registry = pulumi.Output.from_input(place) if later else place
        args = image(registry=registry, fetch_on="builder", builder="kube", mirrors=(mirror,))
        return {"reference": ModelcarImage("chat", args).reference}

    assert Engine(preview=True).run(lambda: program(f"{place}/former"))
    with pytest.raises(
        (pulumi.RunError, InputError), match=r"(?s)mirrors: other\.example\.com/x, .*fix: remove fetch_on"
    ):
        Engine(preview=True).run(lambda: program("other.example.com/x"))


def test_a_service_takes_the_name_of_a_runtime_that_is_there() -> None:
    engine = Engine(preview=False)
    engine.run(lambda: {"name": ModelService("chat", service(shared_runtime="vllm")).name})
    assert engine.the("InferenceService").inputs["spec"]["predictor"]["model"]["runtime"] == "vllm"
    assert not [one for one in engine.declared if one.type.endswith(":ServingRuntime")]

    with pytest.raises(InputError, match=r"shared_runtime: vllm, and placement storageUris has no"):
        service(shared_runtime="vllm", placement="storageUris").spec("chat")


@pytest.mark.parametrize("access", [None, ACCESS])
def test_the_provider_waits_as_long_as_a_start_may_take(access: ClusterAccess | None) -> None:
    engine = Engine(preview=False)
    args = service(access=access, start_timeout_seconds=3600)
    engine.run(lambda: {"name": ModelService("chat", args).name})
    declared = engine.the("InferenceService")
    awaited = "pulumi.com/waitFor" in declared.inputs["metadata"]["annotations"]
    assert awaited == (access is None)
    assert declared.timeouts == ("3660s", "3990s", "600s"), "an update lets a former pod finish first"


def test_in_knative_mode_no_former_pod_is_waited_for() -> None:
    engine = Engine(preview=False)
    args = service(deployment_mode="Knative", start_timeout_seconds=60)
    engine.run(lambda: {"name": ModelService("chat", args).name})
    assert engine.the("InferenceService").timeouts == ("120s", "120s", "600s")


def test_a_runtime_of_the_same_program_is_compared() -> None:
    engine = Engine(preview=False)

    def program() -> dict[str, pulumi.Output[Any]]:
        runtime = SharedRuntime("vllm", SharedRuntimeArgs(namespace="models", server=SERVER))
        other = VllmServer(image=SERVER.image, port=9000)
        return {"name": ModelService("chat", service(server=other, shared_runtime=runtime)).name}

    with pytest.raises(InputError, match=r"shared_runtime: vllm, and server\.port differ from it"):
        engine.run(program)


def test_a_runtime_and_its_models_are_of_one_deployment_mode() -> None:
    engine = Engine(preview=False)

    def program(mode: Any) -> dict[str, pulumi.Output[Any]]:
        shared = SharedRuntimeArgs(namespace="models", server=SERVER, deployment_mode=mode)
        args = service(shared_runtime=SharedRuntime("vllm", shared), deployment_mode="Knative")
        return {"name": ModelService("chat", args).name}

    with pytest.raises(InputError, match=r"shared_runtime: vllm, and deployment_mode differ from it"):
        engine.run(lambda: program("Standard"))
    engine = Engine(preview=False)
    engine.run(lambda: program("Knative"))
    [server] = engine.the("ServingRuntime").inputs["spec"]["containers"]
    assert "lifecycle" not in server, "Knative disallows it"


def test_a_runtime_is_refused_for_another_kind_of_server() -> None:
    custom = CustomServer(image=SERVER.image)
    runtime = SharedRuntimeArgs(namespace="models", server=SERVER).spec("vllm")
    assert runtime_differences(service(server=custom).spec("chat"), runtime) == ["runtime"]
    assert not runtime_differences(service().spec("chat"), runtime)


def test_a_runtime_does_not_look_at_what_is_one_models_own() -> None:
    typed = VllmServer(image=SERVER.image, tensor_parallel_size=2, pipeline_parallel_size=4)
    own = typed.model_copy(update={"args": ("--shutdown-timeout", "1000"), "env": {"A": "b"}})
    args = SharedRuntimeArgs(namespace="models", server=own)
    assert args.spec("vllm") == SharedRuntimeArgs(namespace="models", server=SERVER).spec("vllm")
    with pytest.raises(InputError, match=r"server\.tensor_parallel_size"):
        service(server=typed).spec("chat")


def test_a_shared_runtime_has_no_memory_that_its_shared_memory_is_a_part_of() -> None:
    args = SharedRuntimeArgs(namespace="models", server=SERVER, shared_memory="64Gi")
    assert args.spec("vllm").shared_memory == "64Gi"
    own = ServerResources(memory="32Gi", shared_memory="64Gi")
    with pytest.raises(InputError, match=r"resources\.shared_memory: 64Gi, more than"):
        service(resources=own).spec("chat")


def test_what_is_wrong_ends_a_pulumi_program_without_a_traceback() -> None:
    # In a process of its own: here the error may have been made before Pulumi was loaded.
    code = (
        "import pulumi\nfrom components.kserve.server import VllmServer\n"
        "try:\n    VllmServer(image='vllm/vllm-openai:latest')\n"
        "except pulumi.RunError as error:\n    print(error)"
    )
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    assert said.startswith("VllmServer.image: 'vllm/vllm-openai:latest': names an image by tag")
