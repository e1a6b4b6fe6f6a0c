"""The stack's settings: defaults, and every mistake told with what is allowed and the fix."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from components.cluster.guard import ClusterAccess
from components.config import loading as settings
from components.config import models
from components.config.loading import KEYS, OF_STACK, TOP_LEVEL
from components.config.quantities import quantity
from components.config.settings import PLATFORM_FILE, Settings
from components.stack import configuration, translate
from modelcar.errors import InputError, Problem

PROJECT_FILE = Path(__file__).parents[2] / "Pulumi.yaml"
DIGEST = "sha256:" + "a" * 64
MINIMAL = {
    "registry": "localhost:5000/models",
    "serverImage": f"docker.io/vllm/vllm-openai:v0.23.0@{DIGEST}",
    "namespace": "kserve-demo",
    "model": "qwen2.5-0.5b",
    "serviceName": "qwen-oci",
}
SECRET = "hf_s3cret"


def as_text(value: Any) -> str:
    """Return a value as Pulumi hands it over: strings as they are, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def load(project: Path = Path("/nowhere"), **changes: Any) -> Settings:
    """Load the minimal stack with changes; a key that is None is left out, and an image needs no model."""
    minimal = {key: value for key, value in MINIMAL.items() if key != "model" or "image" not in changes}
    config = {f"modelcar:{key}": as_text(value) for key, value in {**minimal, **changes}.items()}
    return settings.load({key: value for key, value in config.items() if value != "null"}, project)


def problems(project: Path = Path("/nowhere"), **changes: Any) -> list[Problem]:
    with pytest.raises(InputError) as caught:
        load(project, **changes)
    return list(caught.value.problems)


def declared() -> dict[str, dict[str, Any]]:
    config: dict[str, dict[str, Any]] = yaml.safe_load(PROJECT_FILE.read_text())["config"]
    return {key.removeprefix("modelcar:"): value for key, value in config.items()}


# --- what is right ----------------------------------------------------------------------------------


def test_two_keys_are_enough() -> None:
    found = load()
    assert (found.registry, found.server_image) == (MINIMAL["registry"], MINIMAL["serverImage"])
    assert (found.cpu, found.cpu_limit, found.memory) == ("4", None, "16Gi")
    assert found.server_command == ("python3", "-m", "vllm.entrypoints.openai.api_server")
    assert (found.server_args, found.server_env, found.server_host_paths) == ((), (), ())


def test_defaults_are_those_that_the_project_file_declares() -> None:
    types = {"string": str, "integer": int, "boolean": bool}
    found = load().model_dump(by_alias=True)
    for key, declaration in declared().items():
        default = declaration["default"]
        assert type(default) is types[declaration["type"]], key
        if key in {"parallelBuilds", "keepRemovedDays"}:
            stack = models.load_stack({f"modelcar:{name}": text for name, text in MINIMAL.items()}, Path())
            assert default in {stack.parallel_builds, stack.keep_removed_days}
        elif key != PLATFORM_FILE:
            assert (type(found[key]), found[key]) == (type(default), default), key


def test_declared_defaults_handed_over_as_text_change_nothing() -> None:
    texts = {key: declaration["default"] for key, declaration in declared().items()}
    assert texts
    assert load(**texts) == load()


def as_pulumi_runs_it(**changes: Any) -> Settings:
    """Load a stack as Pulumi hands it over: with the project file's defaults, as if the stack set them."""
    return load(**{key: row["default"] for key, row in declared().items()} | changes)


#: Stacks in which a setting may mean something else where it is not set.
UNSET: tuple[dict[str, Any], ...] = (
    {},
    {"image": f"ghcr.io/o/modelcar@{DIGEST}"},
    {"runtime": "custom"},
    {"deploymentMode": "Knative"},
    {"placement": "imageVolume"},
    {"gpuCount": 0, "memory": "1Gi"},
    {"sharedRuntime": "vllm"},
)


@pytest.mark.parametrize("changes", UNSET, ids=lambda changes: "-".join(changes) or "none")
def test_a_default_of_the_project_file_means_the_same_as_a_key_that_is_not_set(
    changes: dict[str, Any],
) -> None:
    own, handed_over = load(**changes), as_pulumi_runs_it(**changes)
    follow = [name for name, member in vars(Settings).items() if isinstance(member, property)]
    assert "kernel_mode" in follow
    for name in follow:
        assert getattr(own, name) == getattr(handed_over, name), name
    assert own.model_dump() == handed_over.model_dump()
    assert translate.service(own, "", None, None, ClusterAccess()) == translate.service(
        handed_over, "", None, None, ClusterAccess()
    )


def test_each_key_is_declared_or_named_in_the_project_files_comment() -> None:
    comments = " ".join(re.findall(r"^ *# *(.*)$", PROJECT_FILE.read_text(), re.MULTILINE))
    [named] = re.findall(r"keys that have no default: ([^.]+)\.", comments)
    undeclared = (TOP_LEVEL | OF_STACK) - set(declared())
    assert set(named.split(", ")) == undeclared
    assert set(declared()) - TOP_LEVEL == {PLATFORM_FILE, "parallelBuilds", "keepRemovedDays"}


def test_text_becomes_numbers_flags_and_lists() -> None:
    found = load(gpuCount="2", awaitReady="false", serverArgs='["--a=b c", "$c"]', cpu="1.5", memory="900Mi")
    assert found.gpu_count == 2
    assert found.await_ready is False
    assert found.server_args == ("--a=b c", "$c")
    assert (found.cpu, found.memory) == ("1.5", "900Mi")


def test_strings_that_look_like_json_stay_strings() -> None:
    found = load(serviceName="true", cpu="4", servedModelName="[1]", imageName="7")
    assert (found.service_name, found.cpu, found.model_name, found.image_name) == ("true", "4", "[1]", "7")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"model": "tiny-qwen2"}, "tiny-qwen2"),
        ({"model": "qwen2.5-0.5b"}, "qwen2-5-0-5b"),
        ({"model": "a__b"}, "a--b"),
        ({"model": "/srv/models/my_model/model.lock"}, "my-model"),
        ({"model": "7b", "imageName": "seven_b"}, "seven-b"),
        ({"image": f"ghcr.io/acme/granite-3.1@{DIGEST}"}, "granite-3-1"),
        ({"image": f"oci://ghcr.io/acme/granite-3.1:v2@{DIGEST}"}, "granite-3-1"),
    ],
)
def test_a_service_is_named_by_its_model_where_the_stack_does_not_say(
    changes: dict[str, Any], name: str
) -> None:
    found = load(**changes, serviceName=None)
    assert (found.service_name, found.key) == (name, name)
    assert load(**changes, serviceName="own").service_name == "own"


def test_a_stack_that_says_nothing_is_told_what_it_needs() -> None:
    with pytest.raises(InputError) as caught:
        models.load_stack({}, Path())
    assert keys(list(caught.value.problems)) == {"model", "namespace", "registry", "serverImage"}


def test_what_belongs_to_a_demo_is_no_default() -> None:
    required = {key for key, field in KEYS.items() if field.is_required()}
    assert required == {"model", "namespace", "registry", "serverImage", "serviceName"}
    assert not required & set(declared())


def test_clients_ask_for_the_images_name_where_no_other_is_set() -> None:
    assert load(imageName="tiny").model_name == "tiny"
    assert load(imageName="tiny", servedModelName="org/Tiny 1").model_name == "org/Tiny 1"


def test_keys_of_other_namespaces_are_not_looked_at() -> None:
    config = {f"modelcar:{key}": value for key, value in MINIMAL.items()}
    assert settings.load({**config, "kubernetes:gpuCount": "x", "pulumi:tags": "{"}, Path()) == load()


@pytest.mark.parametrize(
    "changes",
    [
        {"minReplicas": 0, "deploymentMode": "Knative"},
        {"minReplicas": 2, "maxReplicas": 2},
        {"rollout": "auto", "deploymentMode": "Knative"},
        {"rollout": "RollingUpdate"},
        {"canaryTrafficPercent": 0, "deploymentMode": "Knative"},
        {"rollbackTo": DIGEST},
        {"placement": "storageUriEnv", "deploymentMode": "Knative"},
        {"placement": "storageUris"},
        {"cpu": "500m", "cpuLimit": "0.5"},
        {"serverEnv": ["A=", "B_1=x=y", "HF_HOME=/tmp/x"]},
        {"serverHostPaths": ["/opt/a..b"], "gpuCount": 0},
        {"model": "tiny-qwen2", "imageName": "other"},
        {"model": "/srv/models/tiny/model.lock", "architecture": "arm64"},
        {"hubEndpoint": "https://mirror.example/hub"},
        {"hubEndpoint": "http://127.0.0.1:8080"},
        {"registry": "europe-docker.pkg.dev/project/repo"},
        {"serviceName": "a" * 40},  # and "-predictor-kserve-demo": 62 characters
        {"serverArgs": ["{a}", '{"x": {"y": 1}}']},
        {"model": "models/Qwen/model.lock", "imageName": "qwen"},
        {"registry": "myorg:443/models"},
        {"registry": "localhost/models"},
        {"serverImage": f"vllm/vllm-openai@{DIGEST}"},
        {"egress": {"restrict": True, "dns": True, "allow": [{"cidr": "10.0.0.5/32", "ports": []}]}},
        {"serverHostPaths": ["/opt", "/opt/venv", "/mnt/data", "/dev"], "gpuCount": 0},
        {"servedModelName": "org/Name 1.5:latest"},
        {"memory": "1e9", "sharedMemory": "64Mi"},
        {"serverPort": 8012},
        {"deploymentMode": "Knative", "serverPort": 8081},
        {"sharedRuntime": "a" * 63},
        {"serviceName": "a" * 39, "namespace": "b" * 13},
        {"namespace": "kserve"},
        {"namespace": "modelcar-smoke", "placement": "imageVolume"},
        {"builder": ""},
    ],
    ids=str,
)
def test_settings_that_go_together_are_taken(changes: dict[str, Any]) -> None:
    found = load(**changes).model_dump(by_alias=True, mode="json")
    assert {key: found[key] for key in changes} == changes


@pytest.mark.parametrize(
    "changes",
    [
        {"namespace": "kserve", "createNamespace": False},
        {"namespace": "kserve", "delivery": "gitops", "gitops": {"folder": "apps"}},
        {"namespace": "kserve", "kserve": {"install": True, "namespace": "own"}},
        {"namespace": "cert-manager", "kserve": {"install": True, "installCertManager": False}},
    ],
    ids=str,
)
def test_a_namespace_may_be_kserves_where_it_is_declared_once(changes: dict[str, Any]) -> None:
    assert load(**{"kserve": {"install": True}, **changes}).namespace == changes["namespace"]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("4", 4), ("500m", 0.5), (".5", 0.5), ("2.", 2), ("1.5", 1.5)),
        *(("2k", 2e3), ("1M", 1e6), ("1Ki", 1024), ("16Gi", 16 * 2**30)),
    ],
)
def test_quantities_have_kubernetes_units(text: str, number: float) -> None:
    assert quantity(text) == number


@pytest.mark.parametrize("thousandths", [9, 700, 1400, 2300])
def test_two_ways_to_write_a_quantity_are_equal(thousandths: int) -> None:
    found = load(cpu=f"{thousandths}m", cpuLimit=str(thousandths / 1000))
    assert quantity(found.cpu) == quantity(str(found.cpu_limit))


@pytest.mark.parametrize(("shared", "memory"), [("4.1G", "4100M"), ("8.2G", "8200M"), ("4100M", "4.1G")])
def test_shared_memory_may_be_all_of_the_memory_however_it_is_written(shared: str, memory: str) -> None:
    assert load(sharedMemory=shared, memory=memory).shared_memory == shared


@pytest.mark.parametrize("cpu", ["1m", "0.001", ".5", 0.001, "1000"])
def test_processors_from_a_thousandth_to_a_thousand_are_taken(cpu: str | float) -> None:
    assert load(cpu=cpu, cpuLimit=None).cpu == str(cpu)


def test_pulumi_hands_over_all_keys_so_that_a_misspelt_one_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = {f"modelcar:{key}": value for key, value in MINIMAL.items()}

    def run(extra: dict[str, str]) -> Settings:
        monkeypatch.setenv("PULUMI_CONFIG", json.dumps({**config, **extra}))
        return configuration.from_pulumi(Path()).shared

    assert run({"modelcar:gpuCount": "3"}).gpu_count == 3
    with pytest.raises(InputError, match="modelcar:gpuCont: unknown key"):
        run({"modelcar:gpuCont": "3"})


# --- what is wrong ----------------------------------------------------------------------------------


class Wrong(NamedTuple):
    """One mistake, and a part of each of the four things that are said of it."""

    changes: dict[str, Any]
    key: str
    value: str
    allowed: str
    fix: str


BY_DIGEST = "IMAGE@sha256:<64 hexadecimal digits>"
PLACE = "HOST[:PORT]/PATH, in lower case, without scheme and tag"
PLACEMENTS = "'servingRuntime', 'storageUriEnv', 'storageUris', 'imageVolume' or 'auto'"
NOT_SET = "pulumi config set modelcar:"

WRONG = {
    # keys
    "other case": Wrong(
        {"gpucount": 1}, "gpucount", "unknown key", "gpuCount", "did you mean modelcar:gpuCount?"
    ),
    "letter lost": Wrong(
        {"platformFil": "x"}, "platformFil", "unknown", "platformFile", "did you mean modelcar:platformFile?"
    ),
    "python's name": Wrong(
        {"served_model_name": "x"},
        "served_model_name",
        "unknown",
        "servedModelName",
        "did you mean modelcar:servedModelName?",
    ),
    "unheard of": Wrong({"zzz": 1}, "zzz", "unknown key", "registry", "remove it; the keys are listed in"),
    "no registry": Wrong(
        {"registry": None}, "registry", "not set", "HOST[:PORT]/PATH", f"{NOT_SET}registry …"
    ),
    "no model": Wrong(
        {"model": None},
        "model",
        "not set",
        "a locked model (a folder of modelcar/models, or a model.lock's path), or modelcar:image by digest",
        f"{NOT_SET}model NAME (`python -m modelcar lock NAME --hub OWNER/NAME` makes one)",
    ),
    "no model and no name": Wrong({"model": None, "serviceName": None}, "model", "not set", "locked", "NAME"),
    "no namespace": Wrong(
        {"namespace": None}, "namespace", "not set", "served in", f"{NOT_SET}namespace NAME"
    ),
    "no name that KServe takes": Wrong(
        {"model": "7b", "serviceName": None},
        "serviceName",
        "not set",
        "[a-z]([-a-z0-9]*[a-z0-9])?; the model's name does not make one",
        f"{NOT_SET}serviceName NAME",
    ),
    "no name in a path": Wrong(
        {"model": "/7b/model.lock", "serviceName": None},
        "serviceName",
        "not set",
        "[a-z]",
        "serviceName NAME",
    ),
    "no name of the image": Wrong(
        {"image": f"ghcr.io/acme/7b@{DIGEST}", "serviceName": None}, "serviceName", "not set", "", "NAME"
    ),
    "image's name, wrong": Wrong(
        {"imageName": "-7b", "serviceName": None}, "imageName", "'-7b'", "lower case", "use lower-case"
    ),
    "model's name, wrong": Wrong(
        {"model": "../7b", "serviceName": None}, "model", "'../7b'", "modelcar/models", "modelcar lock NAME"
    ),
    "image and no name": Wrong(
        {"image": "7b", "serviceName": None}, "image", "not an image by digest", "@sha256:", "registry shows"
    ),
    "weights of 0.1": Wrong(
        {"weights": "data/x"}, "weights", "a key of version 0.1", "locked model", "lock NAME --folder PATH"
    ),
    "size of 0.1": Wrong(
        {"modelSize": "1Gi"}, "modelSize", "0.1", "the lock", "config rm modelcar:modelSize"
    ),
    "base of 0.1": Wrong({"baseImage": "x"}, "baseImage", "0.1", "base.lock", "config rm modelcar:baseImage"),
    # the model
    "path as model": Wrong({"model": "data/x"}, "model", "'data/x'", "modelcar/models", "modelcar lock NAME"),
    "upper-case model": Wrong({"model": "Qwen"}, "model", "'Qwen'", "modelcar/models", "modelcar lock NAME"),
    "other processor": Wrong({"architecture": "x86"}, "architecture", "'x86'", "'amd64' or 'arm64'", ""),
    "hub in the clear": Wrong(
        {"hubEndpoint": "http://hub"}, "hubEndpoint", "'http://hub'", "https://", "leave"
    ),
    "password for hub": Wrong(
        {"hubEndpoint": "https://me:pw@hub"}, "hubEndpoint", "credentials", "without them", "HF_TOKEN"
    ),
    "no server": Wrong(
        {"serverImage": None}, "serverImage", "not set", "image, by digest", f"{NOT_SET}serverImage …"
    ),
    # types
    "word for int": Wrong(
        {"gpuCount": "one"}, "gpuCount", "'one'", "a whole number", "correct modelcar:gpuCount"
    ),
    "fraction": Wrong({"minReplicas": 1.5}, "minReplicas", "1.5", "a whole number", "modelcar:minReplicas"),
    "empty int": Wrong({"serverPort": ""}, "serverPort", "''", "a whole number", "modelcar:serverPort"),
    "word for bool": Wrong(
        {"awaitReady": "maybe"}, "awaitReady", "'maybe'", "true or false", "correct modelcar:awaitReady"
    ),
    "number for bool": Wrong(
        {"registryInsecure": 2}, "registryInsecure", "2", "true or false", "modelcar:registryInsecure"
    ),
    "word for list": Wrong(
        {"serverArgs": "--x"}, "serverArgs", "not shown", "a list", "correct modelcar:serverArgs"
    ),
    "object for list": Wrong(
        {"serverHostPaths": {"a": 1}}, "serverHostPaths", "{'a': 1}", "a list", "modelcar:serverHostPaths"
    ),
    "number in list": Wrong(
        {"serverArgs": ["a", 1]}, "serverArgs[1]", "not shown", "a text", "modelcar:serverArgs"
    ),
    "no command": Wrong(
        {"serverCommand": []}, "serverCommand", "not shown", "at least 1", "modelcar:serverCommand"
    ),
    # ranges
    "negative": Wrong({"gpuCount": -1}, "gpuCount", "-1", "at least 0", "modelcar:gpuCount"),
    "many GPUs": Wrong({"gpuCount": 17}, "gpuCount", "17", "at most 16", "modelcar:gpuCount"),
    "no replica": Wrong({"maxReplicas": 0}, "maxReplicas", "0", "at least 1", "modelcar:maxReplicas"),
    "root's port": Wrong({"serverPort": 80}, "serverPort", "80", "at least 1024", "modelcar:serverPort"),
    "high port": Wrong({"serverPort": 65536}, "serverPort", "65536", "at most 65535", "modelcar:serverPort"),
    "no time": Wrong(
        {"startTimeoutSeconds": 9}, "startTimeoutSeconds", "9", "at least 10", "modelcar:startTimeoutSeconds"
    ),
    # images
    "server by tag": Wrong(
        {"serverImage": "vllm/vllm-openai:v1"},
        "serverImage",
        "'vllm/vllm-openai:v1': names an image by tag",
        BY_DIGEST,
        "docker buildx imagetools inspect vllm/vllm-openai:v1",
    ),
    "short digest": Wrong(
        {"serverImage": "busybox@sha256:abc"},
        "serverImage",
        "'busybox@sha256:abc': not an image by digest",
        BY_DIGEST,
        "as the registry shows it",
    ),
    "upper-case digest": Wrong(
        {"serverImage": "busybox@sha256:" + "A" * 64}, "serverImage", "not an image by", BY_DIGEST, "copy it"
    ),
    "layout as server": Wrong(
        {"serverImage": f"oci-layout://x@{DIGEST}"}, "serverImage", "not an image by", BY_DIGEST, "copy it"
    ),
    # the registry
    "scheme": Wrong(
        {"registry": "https://h.io/p"},
        "registry",
        "'https://h.io/p': has a scheme",
        PLACE,
        "europe-docker.pkg.dev",
    ),
    "upper case": Wrong(
        {"registry": "h.io/Models"}, "registry", "'h.io/Models': not a place", PLACE, "for example"
    ),
    "no path": Wrong(
        {"registry": "localhost:5000"}, "registry", "'localhost:5000': not a place", PLACE, "for example"
    ),
    "empty path": Wrong({"registry": "h.io/"}, "registry", "'h.io/': not a place", PLACE, "for example"),
    "with tag": Wrong({"registry": "h.io/p:1"}, "registry", "'h.io/p:1': not a place", PLACE, "for example"),
    # names
    "upper-case image": Wrong(
        {"imageName": "Qwen"}, "imageName", "'Qwen': not a repository name", "lower case", "lower-case"
    ),
    "image in a folder": Wrong(
        {"imageName": "a/b"}, "imageName", "'a/b': not a repository name", "lower case", "lower-case"
    ),
    "dots in a row": Wrong(
        {"imageName": "a..b"}, "imageName", "'a..b': not a repository name", "single .", "lower-case"
    ),
    "dotted service": Wrong(
        {"serviceName": "qwen2.5"},
        "serviceName",
        "'qwen2.5': KServe refuses this name",
        "[a-z]([-a-z0-9]*[a-z0-9])?",
        "start with a letter; no dots",
    ),
    "service with a digit first": Wrong(
        {"serviceName": "7b"}, "serviceName", "'7b': KServe refuses", "[a-z]", "start with a letter"
    ),
    "service with a dash last": Wrong(
        {"serviceName": "a-"}, "serviceName", "'a-': KServe refuses", "[a-z]", "start with a letter"
    ),
    "namespace": Wrong(
        {"namespace": "my_models"},
        "namespace",
        "'my_models': Kubernetes refuses this name",
        "[a-z0-9]([-a-z0-9]*[a-z0-9])?",
        "lower-case letters, digits and '-'",
    ),
    "namespace with a line's end": Wrong(
        {"namespace": "models\n"}, "namespace", "Kubernetes refuses", "[a-z0-9]", "lower-case"
    ),
    "long host": Wrong(
        {"serviceName": "a" * 42},
        "serviceName",
        "a" * 42 + "-predictor-kserve-demo (64 characters)",
        "63 characters at most",
        "shorten serviceName or namespace",
    ),
    "long namespace": Wrong(
        {"namespace": "n" * 60}, "serviceName", "(79 characters)", "63 characters", "shorten serviceName or"
    ),
    # replicas and rollout
    "more at least than at most": Wrong(
        {"minReplicas": 3, "maxReplicas": 2},
        "maxReplicas",
        "2, below minReplicas 3",
        "at least minReplicas",
        "raise maxReplicas or lower minReplicas",
    ),
    "scale to zero": Wrong(
        {"minReplicas": 0},
        "minReplicas",
        "0 in deployment mode Standard",
        "1 or more, or deploymentMode Knative",
        "set minReplicas to 1",
    ),
    "rollout in Knative": Wrong(
        {"rollout": "Recreate", "deploymentMode": "Knative"},
        "rollout",
        "Recreate in deployment mode Knative",
        "auto there",
        "remove modelcar:rollout",
    ),
    "rolling in Knative": Wrong(
        {"rollout": "RollingUpdate", "deploymentMode": "Knative"},
        "rollout",
        "RollingUpdate in deployment mode Knative",
        "auto",
        "remove",
    ),
    "canary in Standard": Wrong(
        {"canaryTrafficPercent": 10},
        "canaryTrafficPercent",
        "10 in deployment mode Standard, which splits no traffic",
        "deploymentMode Knative",
        "remove it",
    ),
    "more than all": Wrong(
        {"canaryTrafficPercent": 101, "deploymentMode": "Knative"},
        "canaryTrafficPercent",
        "101",
        "at most 100",
        "correct modelcar:canaryTrafficPercent",
    ),
    "Git without a folder": Wrong(
        {"delivery": "gitops"},
        "delivery",
        "gitops, and modelcar:gitops does not say where to",
        "a folder of a Git checkout, or cluster",
        "pulumi config set --path modelcar:gitops.folder ../deploy/apps/kserve-demo",
    ),
    "a password for Git": Wrong(
        {
            "delivery": "gitops",
            "gitops": {"folder": "../deploy"},
            "registryUsername": "robot",
            "registryPassword": SECRET,
        },
        "registryPassword",
        "Git is no place for it (not shown)",
        "modelcar:pullSecret",
        "make the Secret in the cluster",
    ),
    "a folder of nothing": Wrong(
        {"gitops": {"folder": ""}},
        "gitops.folder",
        "''",
        "at least 1 character",
        "correct modelcar:gitops.folder",
    ),
    "rollback to a tag": Wrong(
        {"rollbackTo": "v1"},
        "rollbackTo",
        "'v1': not a digest",
        "sha256:<64 hexadecimal digits>",
        "operations revisions",
    ),
    "misspelt rollout": Wrong(
        {"rollout": "recreate"},
        "rollout",
        "'recreate'",
        "'auto', 'Recreate' or 'RollingUpdate'",
        "did you mean Recreate?",
    ),
    "another mode": Wrong(
        {"deploymentMode": "RawDeployment"},
        "deploymentMode",
        "'RawDeployment'",
        "'Standard' or 'Knative'",
        "choose one of these",
    ),
    # placement
    "misspelt placement": Wrong(
        {"placement": "servingruntime"},
        "placement",
        "'servingruntime'",
        PLACEMENTS,
        "did you mean servingRuntime?",
    ),
    "URIs in Knative": Wrong(
        {"placement": "storageUris", "deploymentMode": "Knative"},
        "placement",
        "storageUris in deployment mode Knative",
        "servingRuntime or storageUriEnv there",
        "use servingRuntime",
    ),
    # quantities
    "comma": Wrong({"cpu": "1,5"}, "cpu", "'1,5': not a Kubernetes quantity", "4 or 500m", "use a number"),
    "byte": Wrong({"memory": "16GB"}, "memory", "'16GB': not a Kubernetes quantity", "16Gi", "use Ki, Mi"),
    "small unit": Wrong(
        {"sharedMemory": "2gi"}, "sharedMemory", "'2gi': not a Kubernetes quantity", "2Gi", "use Ki"
    ),
    "zero": Wrong({"memory": "0Gi"}, "memory", "'0Gi': not a Kubernetes quantity above zero", "16Gi", "Ki"),
    "no CPU": Wrong({"cpuLimit": "0"}, "cpuLimit", "'0': not a Kubernetes quantity above", "500m", "use"),
    "less than nothing": Wrong({"cpu": "-1"}, "cpu", "'-1': not a Kubernetes quantity above", "500m", "use"),
    "limit below request": Wrong(
        {"cpu": "1", "cpuLimit": "900m"},
        "cpuLimit",
        "900m, below the request modelcar:cpu 1",
        "at least modelcar:cpu",
        "raise cpuLimit or lower cpu",
    ),
    "more shared memory than memory": Wrong(
        {"memory": "8Gi", "sharedMemory": "9000Mi"},
        "sharedMemory",
        "9000Mi, more than modelcar:memory 8Gi, which it is a part of",
        "at most modelcar:memory",
        "raise memory, or lower sharedMemory",
    ),
    # the server's environment
    "no value": Wrong(
        {"serverEnv": ["A=1", "DEBUG"]},
        "serverEnv",
        "entry 2 is not",
        "NAME=VALUE entries",
        "write NAME=VALUE",
    ),
    "bad name": Wrong(
        {"serverEnv": ["1A=x"]}, "serverEnv", "entry 1 is not", "NAME=VALUE", "write NAME=VALUE"
    ),
    "no name": Wrong({"serverEnv": ["=x"]}, "serverEnv", "entry 1 is not", "NAME=VALUE", "write NAME"),
    **{
        f"reserved {name}": Wrong(
            {"serverEnv": ["A=1", f"{name}=0"]},
            "serverEnv",
            f"{name} is set",
            "any name but HF_HUB_OFFLINE, HOME, MODELCAR_KERNELS, MODELCAR_SERVER_ID, STORAGE_URI",
            "remove the entry: the program sets it",
        )
        for name in ("HF_HUB_OFFLINE", "HOME", "STORAGE_URI", "TRANSFORMERS_OFFLINE")
    },
    **{
        f"no {name}": Wrong(
            {"serverEnv": [f"{name}="]},
            "serverEnv",
            f"{name} is empty",
            "a name: the server fails without one",
            "remove the entry: the program sets it",
        )
        for name in ("LOGNAME", "USER")
    },
    # the host's folders
    "relative": Wrong(
        {"serverHostPaths": ["/a", "b/c"], "gpuCount": 0},
        "serverHostPaths",
        "b/c",
        "absolute paths below /",
        "give the folder's full path",
    ),
    "upwards": Wrong(
        {"serverHostPaths": ["/a/../etc"], "gpuCount": 0},
        "serverHostPaths",
        "/a/../etc",
        "absolute paths below /",
        "full path",
    ),
    "the whole host": Wrong(
        {"serverHostPaths": ["/"], "gpuCount": 0}, "serverHostPaths", "/", "absolute paths below /", "full"
    ),
    **{
        f"writable {path}": Wrong(
            {"serverWritablePaths": ["/data", path], "serverHostPaths": ["/opt/server"], "gpuCount": 0},
            "serverWritablePaths",
            path,
            allowed,
            fix,
        )
        for path, allowed, fix in (
            ("data", "absolute paths below /", "give the folder's full path"),
            ("/", "absolute paths below /", "give the folder's full path"),
            ("/a/../etc", "absolute paths below /", "give the folder's full path"),
            ("/a:/b", "absolute paths below /", "give the folder's full path"),
            ("/a/{{.Name}}", "no '{{', which KServe expands", "write the value itself"),
            ("/tmp/cache", "folders apart from each other", "take one of the two out"),
            ("/mnt/models", "folders apart from each other", "take one of the two out"),
            ("/data", "folders apart from each other", "take one of the two out"),
            ("/data/more", "folders apart from each other", "take one of the two out"),
            ("/opt", "folders apart from each other", "take one of the two out"),
        )
    },
    "with GPU": Wrong(
        {"serverHostPaths": ["/a", "/b"], "gpuCount": 1},
        "serverHostPaths",
        "2 folders on a stack with GPUs",
        "[] but on the local stack",
        "serverImage instead",
    ),
    # what is there already
    "import of no kind": Wrong(
        {"importExisting": ["Bucket"]},
        "importExisting[0]",
        "'Bucket'",
        "'Repository', 'RepositoryIamMember'",
        "",
    ),
    "repository without Google": Wrong(
        {"importExisting": ["Repository"]},
        "importExisting",
        "without modelcar:google",
        "Namespace there",
        "say modelcar:google",
    ),
    "namespace that is not made": Wrong(
        {"importExisting": ["Namespace"], "createNamespace": False},
        "importExisting",
        "createNamespace is false",
        "one of the two",
        "take Namespace out",
    ),
    "namespaces of a KServe that is not installed": Wrong(
        {"importExisting": ["KServeNamespaces"]},
        "importExisting",
        "does not install KServe",
        "kserve.install true",
        "take it out",
    ),
    "runtime of another placement": Wrong(
        {"importObjects": ["ServingRuntime"], "placement": "storageUriEnv"},
        "importObjects",
        "placement storageUriEnv",
        "InferenceService",
        "take it out",
    ),
    "policy that there is none of": Wrong(
        {"importObjects": ["NetworkPolicy"], "egress": {"restrict": False}},
        "importObjects",
        "egress.restrict is false",
        "InferenceService, ServingRuntime",
        "take it out",
    ),
    "import of what Git delivers": Wrong(
        {"importObjects": ["InferenceService"], "delivery": "gitops", "gitops": {"folder": "x"}},
        "importObjects",
        "Git delivers",
        "nothing with delivery gitops",
        "Argo CD takes over",
    ),
    # names that follow, and places of images
    "folder in upper case": Wrong(
        {"model": "models/Qwen/model.lock"}, "imageName", "'Qwen'", "lower-case", "rename the folder"
    ),
    "folder with a space": Wrong(
        {"model": "My Model/model.lock"}, "imageName", "'My Model'", "lower-case", "set imageName"
    ),
    "lock without a folder": Wrong(
        {"model": "./model.lock"}, "imageName", "no repository name: ''", "lower-case", "set imageName"
    ),
    "registry without a host": Wrong(
        {"registry": "myorg/models"},
        "registry",
        "names no registry",
        PLACE,
        "for Docker Hub write docker.io/myorg/models; for a registry of this name myorg:443/models",
    ),
    "registry's port": Wrong(
        {"registry": "localhost:99999/models"}, "registry", "a port that does not exist", PLACE, "1 to 65535"
    ),
    "port zero": Wrong({"registry": "h.io:0/m"}, "registry", "a port that", PLACE, "1 to 65535"),
    "server's port": Wrong(
        {"serverImage": f"localhost:99999/v@{DIGEST}"}, "serverImage", "a port that", "PORT", "1 to 65535"
    ),
    "image's port": Wrong(
        {"image": f"h.io:99999/m/x@{DIGEST}"}, "image", "a port that does not exist", "PORT", "1 to 65535"
    ),
    "mirror without a host": Wrong(
        {"mirrors": ["myorg/x"]}, "mirrors[0]", "names no registry", "HOST[:PORT]/PATH", "docker.io/myorg/x"
    ),
    # networks
    "address alone": Wrong(
        {"egress": {"allow": [{"cidr": "10.0.0.5"}]}},
        "egress.allow[0].cidr",
        "'10.0.0.5': not in CIDR notation",
        "10.0.0.0/8",
        "write 10.0.0.5/32",
    ),
    "netmask": Wrong(
        {"ingress": {"networks": ["10.0.0.0/255.0.0.0"]}},
        "ingress.networks[0]",
        "not in CIDR notation",
        "10.0.0.0/8",
        "write 10.0.0.0/8",
    ),
    "zone of an address": Wrong(
        {"egress": {"allow": [{"cidr": "fe80::1%eth0/128"}]}},
        "egress.allow[0].cidr",
        "not in CIDR notation",
        "10.0.0.0/8",
        "take the zone off",
    ),
    # folders
    "folder twice": Wrong(
        {"serverHostPaths": ["/a/./b", "/a/b"], "gpuCount": 0},
        "serverHostPaths",
        "/a/b, twice",
        "each folder once",
        "take it out",
    ),
    "folder of the pod's own": Wrong(
        {"serverHostPaths": ["/dev/shm"], "gpuCount": 0},
        "serverHostPaths",
        "/dev/shm, which each pod has already",
        "none of /dev/shm, /mnt, /mnt/models, /tmp",
        "take it out",
    ),
    "colon in a folder": Wrong(
        {"serverHostPaths": ["/a:b"], "gpuCount": 0}, "serverHostPaths", "/a:b", "without ':'", "full path"
    ),
    "line break in a folder": Wrong(
        {"serverWritablePaths": ["/a\nb"]}, "serverWritablePaths", "'/a\\nb'", "control", "full path"
    ),
    "two slashes": Wrong(
        {"serverWritablePaths": ["//tmp"]},
        "serverWritablePaths",
        "//tmp, beside /tmp",
        "apart",
        "take one",
    ),
    # names that a server is asked by
    "option as a name": Wrong(
        {"servedModelName": "--model"}, "servedModelName", "'--model'", "not begin with -", "OWNER/NAME"
    ),
    "lines as a name": Wrong(
        {"servedModelName": "a\nb"}, "servedModelName", "'a\\nb'", "line breaks", "qwen"
    ),
    "blank name": Wrong({"servedModelName": " "}, "servedModelName", "' '", "at most 1000", "qwen"),
    "endless name": Wrong({"servedModelName": "x" * 1001}, "servedModelName", "'xxx", "at most 1000", "qwen"),
    "adapter like the model": Wrong(
        {"vllm": {"loraModules": [{"name": "qwen2.5-0.5b", "path": "a"}]}},
        "vllm.loraModules[0].name",
        "qwen2.5-0.5b, which the model itself has",
        "a name of its own",
        "modelcar:servedModelName",
    ),
    "adapter like the model, among arguments": Wrong(
        {
            "servedModelName": "chat",
            "serverArgs": ["--lora-modules", "x=/mnt/models/x", "chat=/mnt/models/a"],
        },
        "serverArgs",
        "--lora-modules with the name chat, which the model itself has",
        "a name of its own",
        "rename the adapter",
    ),
    # sizes
    "memory without a unit": Wrong(
        {"memory": 16}, "memory", "'16': a size in bytes, below 1Mi", "1Mi or more", "did you mean 16Gi?"
    ),
    "memory in thousandths": Wrong(
        {"memory": "500m"}, "memory", "thousandths of a byte", "1Mi or more", "did you mean 500Mi?"
    ),
    "shared memory without a unit": Wrong(
        {"sharedMemory": "1"}, "sharedMemory", "below 1Mi", "1Mi or more", "did you mean 1Gi?"
    ),
    "endless memory": Wrong({"memory": "9" * 400 + "Gi"}, "memory", "'999", "16Gi", "Gi"),
    "processors in bytes": Wrong(
        {"cpu": "16Gi"}, "cpu", "not a number of processors", "1m to 1000", "did you mean 16?"
    ),
    "less than Kubernetes counts": Wrong({"cpu": "0.0001"}, "cpu", "not a number", "1m to 1000", "correct"),
    "modelcar's memory": Wrong(
        {"kserve": {"modelcarMemory": "15"}},
        "kserve.modelcarMemory",
        "below 1Mi",
        "1Mi",
        "did you mean 15Gi?",
    ),
    "modelcar's processors": Wrong(
        {"kserve": {"modelcarCpu": "1Mi"}}, "kserve.modelcarCpu", "processors", "1m to", "did you mean 1?"
    ),
    # Kubernetes' limits
    "long namespace of the smoke test": Wrong(
        {"smokeNamespace": "a" * 64}, "smokeNamespace", "Kubernetes refuses", "at most 63", "lower-case"
    ),
    "long namespace of KServe": Wrong(
        {"kserve": {"namespace": "a" * 64}}, "kserve.namespace", "refuses", "at most 63", "lower-case"
    ),
    "long namespace that may connect": Wrong(
        {"ingress": {"namespaces": ["a" * 64]}}, "ingress.namespaces[0]", "refuses", "at most 63", "lower"
    ),
    "KServe's namespace": Wrong(
        {"namespace": "kserve", "kserve": {"install": True}},
        "namespace",
        "kserve, which modelcar:kserve.install makes too",
        "of the models' own",
        "createNamespace to false",
    ),
    "cert-manager's namespace": Wrong(
        {"namespace": "cert-manager", "kserve": {"install": True}},
        "namespace",
        "cert-manager, which",
        "own",
        "docs/upgrading.md",
    ),
    "the smoke test's namespace": Wrong(
        {"placement": "auto", "smokeNamespace": "kserve-demo"},
        "smokeNamespace",
        "kserve-demo, where the models are served",
        "makes and removes it",
        "modelcar:smokeNamespace kserve-demo-smoke",
    ),
    "long label": Wrong(
        {"sharedRuntime": "a" * 64}, "sharedRuntime", "(64 characters)", "at most 63", "shorten"
    ),
    "long runtime": Wrong({"sharedRuntime": "a" * 254}, "sharedRuntime", "'aaa", "at most 253", "a letter"),
    "long domain of a label": Wrong(
        {"scheduling": {"nodeSelector": {f"{'x' * 254}/a": "b"}}},
        f"scheduling.nodeSelector.{'x' * 254}/a.[key]",
        "'xxx",
        "DOMAIN at most 253",
        "--show-labels",
    ),
    "port of Knative's proxy": Wrong(
        {"serverPort": 8012, "deploymentMode": "Knative"},
        "serverPort",
        "8012, in deployment mode Knative",
        "none of 8008, 8012, 8013, 8022, 8112, 9090, 9091",
        "8080",
    ),
    # what would be lost
    "variable twice": Wrong(
        {"serverEnv": ["A=s3cret", "A=2"]},
        "serverEnv",
        "A is set twice, and only entry 2 would reach the server",
        "each name once",
        "remove entry 1 or 2",
    ),
    "NUL in a variable": Wrong(
        {"serverEnv": ["A=x\0y"]}, "serverEnv[0]", "holds a NUL", "NUL", "take it out"
    ),
    "NUL in an argument": Wrong({"serverArgs": ["--x\0"]}, "serverArgs[0]", "NUL", "NUL", "take it out"),
    "NUL in an annotation": Wrong(
        {"scheduling": {"podAnnotations": {"a": "\0"}}},
        "scheduling.podAnnotations.a",
        "not a text",
        "without NUL",
        "quote it",
    ),
    "no program": Wrong(
        {"serverCommand": [""]}, "serverCommand", "''", "a program", "write the program's name first"
    ),
    "builder as an option": Wrong(
        {"builder": "--x"}, "builder", "'--x': not a builder's name", "begin with -", "docker buildx ls"
    ),
    "blank kubeconfig": Wrong(
        {"kubeconfig": " "}, "kubeconfig", "blank", "path of a kubeconfig", "remove it"
    ),
    # types of sections
    "list for a section": Wrong({"vllm": []}, "vllm", "[]", "keys with values, as {KEY: …}", "modelcar:vllm"),
    "text for a map": Wrong(
        {"scheduling": {"nodeSelector": "a=b"}},
        "scheduling.nodeSelector",
        "'a=b'",
        "keys with values",
        "modelcar:scheduling",
    ),
    "release without its v": Wrong(
        {"kserve": {"version": "0.19.0"}}, "kserve.version", "'0.19.0'", "such as v0.19.0", "write v"
    ),
    "charts elsewhere": Wrong(
        {"kserve": {"chartRepository": "../x"}}, "kserve.chartRepository", "'../x'", "oci://…", "address"
    ),
    **{
        f"charts at {place}": Wrong(
            {"kserve": {key: place}}, f"kserve.{key}", f"'{place}': not an address", "HOST[:PORT]", "the port"
        )
        for key, place in (
            ("chartRepository", "oci://h:99999/x"),
            ("chartRepository", "oci://[::1/x"),
            ("chartRepository", "oci:///x"),
            ("certManagerRepository", "https://h:abc/x"),
            ("certManagerRepository", "https://h:0/x"),
            ("certManagerRepository", "oci://[::1/x"),
        )
    },
    "said and unsaid": Wrong(
        {"vllm": {"enablePrefixCaching": True}, "serverArgs": ["--no-enable-prefix-caching"]},
        "serverArgs",
        "--no-enable-prefix-caching, which modelcar:vllm sets too",
        "each argument once",
        "remove one",
    ),
    # templates
    "template": Wrong(
        {"serverArgs": ["--a", "x{{.Name}}"]},
        "serverArgs",
        "x{{.Name}}",
        "no '{{', which KServe expands",
        "write the value itself",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_told_with_what_is_allowed_and_the_fix(case: str) -> None:
    wrong = WRONG[case]
    [problem] = problems(**wrong.changes)
    assert problem.key == f"modelcar:{wrong.key}"
    assert wrong.value in problem.value
    assert wrong.allowed in problem.allowed
    assert wrong.fix in problem.fix


def test_repository_name_that_is_too_long_for_registries_is_refused() -> None:
    [problem] = problems(imageName="a" * 256)
    assert problem.key == "modelcar:imageName"


def test_template_in_the_command_is_told_of_the_command() -> None:
    [problem] = problems(serverCommand=["serve", "{{.Name}}"])
    assert problem.key == "modelcar:serverCommand"


@pytest.mark.parametrize("changes", [{"serverEnv": ["A={{.Name}}"]}, {"servedModelName": "{{.Name}}"}])
def test_template_elsewhere_in_the_container_is_refused(changes: dict[str, Any]) -> None:
    [problem] = problems(**changes)
    assert problem.key == f"modelcar:{next(iter(changes))}"


@pytest.mark.parametrize("root", ["//", "/."])
def test_the_whole_host_is_refused_however_it_is_written(root: str) -> None:
    [problem] = problems(serverHostPaths=[root], gpuCount=0)
    assert problem.key == "modelcar:serverHostPaths"


def keys(found: list[Problem]) -> set[str]:
    return {problem.key.removeprefix("modelcar:") for problem in found}


def test_mistakes_of_several_keys_are_told_at_once() -> None:
    found = problems(registry="https://h/p", serverImage=None, gpuCount="x", zzz=1, placment="x", cpu="1,5")
    assert keys(found) == {"registry", "serverImage", "gpuCount", "zzz", "placment", "cpu"}
    assert len(found) == 6


def test_settings_that_do_not_go_together_are_told_at_once() -> None:
    found = problems(
        serviceName="a" * 50,
        minReplicas=0,
        cpuLimit="1",
        serverEnv=["HOME=/"],
        serverHostPaths=["/a"],
        serverArgs=["{{"],
    )
    assert keys(found) == {
        "serviceName",
        "minReplicas",
        "cpuLimit",
        "serverEnv",
        "serverHostPaths",
        "serverArgs",
    }
    found = problems(deploymentMode="Knative", rollout="Recreate", placement="storageUris", unknown=1)
    assert keys(found) == {"rollout", "placement", "unknown"}


def test_a_wrong_value_does_not_hide_two_others_that_do_not_go_together() -> None:
    assert keys(problems(gpuCount="x", minReplicas=5)) == {"gpuCount", "maxReplicas"}


@pytest.mark.parametrize("changes", [{"gpuCount": "x"}, {"serviceName": "7b"}, {"namespace": None}])
def test_a_wrong_value_beside_an_image_is_told_alone(changes: dict[str, Any]) -> None:
    [found] = problems(image=f"ghcr.io/acme/granite@{DIGEST}", registry=None, **changes)
    assert keys([found]) == set(changes)


def test_what_is_said_of_an_image_that_is_wrong_is_not_told_too() -> None:
    [found] = problems(image="granite", registry=None, entrypointRunsArguments=True)
    assert keys([found]) == {"image"}


def test_the_message_has_all_four_parts_of_each_problem() -> None:
    with pytest.raises(InputError) as caught:
        load(registry="h.io/P", gpuCount="x")
    for problem in caught.value.problems:
        for part in (problem.key, problem.value, f"allowed: {problem.allowed}", f"fix: {problem.fix}"):
            assert part in str(caught.value)


@pytest.mark.parametrize(
    "entries",
    [
        [f"HOME={SECRET}"],
        [f"1A={SECRET}"],
        [f"HF-TOKEN={SECRET}"],
        [f"HF_TOKEN={SECRET}", "B"],
        [f"={SECRET}"],
    ],
)
def test_no_value_of_an_environment_entry_is_shown(entries: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        load(serverEnv=entries)
    assert "serverEnv" in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "entries",
    [
        f"HF_TOKEN={SECRET}",
        {"HF_TOKEN": SECRET},
        [{"HF_TOKEN": SECRET}],
        [f"HF_TOKEN: {SECRET}"],
    ],
    ids=["string", "object", "object in list", "colon"],
)
def test_no_value_of_an_environment_entry_of_the_wrong_shape_is_shown(entries: Any) -> None:
    with pytest.raises(InputError) as caught:
        load(serverEnv=entries)
    assert "serverEnv" in str(caught.value)
    assert SECRET not in str(caught.value)


# --- the platform's file ----------------------------------------------------------------------------


def write_platform(project: Path, values: Any) -> Path:
    (project / "platform.json").write_text(json.dumps(values))
    return project


def test_platforms_values_are_defaults_that_the_stack_wins_over(tmp_path: Path) -> None:
    values = {
        "registry": "platform.invalid/models",
        "registryInsecure": True,
        "serverArgs": ["--p"],
        "cpu": "100m",
    }
    write_platform(tmp_path, {**values, "cpuLimit": "2"})
    found = load(
        tmp_path, platformFile="platform.json", registry=None, serverArgs=["--own"], registryInsecure=False
    )
    assert (found.registry, found.cpu, found.cpu_limit) == ("platform.invalid/models", "100m", "2")
    assert found.server_args == ("--own",)
    assert found.registry_insecure is False


def test_platforms_file_is_relative_to_the_project_or_absolute(tmp_path: Path) -> None:
    write_platform(tmp_path, {"gpuCount": 0})
    assert load(tmp_path, platformFile="platform.json").gpu_count == 0
    assert load(Path("/nowhere"), platformFile=str(tmp_path / "platform.json")).gpu_count == 0
    assert load(tmp_path, platformFile="").gpu_count == 1


@pytest.mark.parametrize("variable", ["MODELCAR_STATE", settings.PLATFORM_FILE_VARIABLE])
def test_platforms_file_is_where_its_state_is(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "state/local"
    for folder, gpus in ((tmp_path / ".local/local", 2), (other, 0)):  # the first is another platform's
        folder.mkdir(parents=True)
        write_platform(folder, {"gpuCount": gpus})
    write_platform(tmp_path, {"gpuCount": 3})
    named = other / "platform.json" if variable == settings.PLATFORM_FILE_VARIABLE else other.parent
    monkeypatch.setenv(variable, str(named))
    assert load(tmp_path, platformFile=settings.USUAL_PLATFORM_FILE).gpu_count == 0
    assert load(tmp_path, platformFile="platform.json").gpu_count == 3, "what the stack itself chose"


def test_the_local_stack_names_the_usual_file() -> None:
    config = yaml.safe_load((PROJECT_FILE.parent / "Pulumi.local.yaml").read_text())["config"]
    assert config["modelcar:platformFile"] == settings.USUAL_PLATFORM_FILE


def test_without_the_platforms_file_what_it_never_says_is_missed_all_the_same() -> None:
    found = problems(
        platformFile="platform.json", registry=None, serverImage=None, model=None, namespace=None
    )
    assert keys(found) == {"platformFile", "model", "namespace"}


def test_platforms_values_are_checked_as_the_stacks_are(tmp_path: Path) -> None:
    write_platform(tmp_path, {"registry": "https://h/p", "gpuCount": "many", "cpuLimit": "1,5"})
    found = problems(tmp_path, platformFile="platform.json", registry=None)
    assert keys(found) == {"registry", "gpuCount", "cpuLimit"}


def test_what_else_the_platforms_file_holds_is_not_a_setting(tmp_path: Path) -> None:
    write_platform(tmp_path, {"version": 3, "gpu_count": 5})
    assert load(tmp_path, platformFile="platform.json") == load()


def test_missing_platform_file_is_told(tmp_path: Path) -> None:
    [problem] = problems(tmp_path, platformFile=".local/platform.json")
    assert problem.key == "modelcar:platformFile"
    assert problem.value == ".local/platform.json does not exist"
    assert "embedded platform writes" in problem.allowed
    assert "make platform" in problem.fix


@pytest.mark.parametrize("content", [b"", b"{", b"gpuCount: 1", b"\xff\xfe"])
def test_platform_file_that_is_not_json_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "platform.json").write_bytes(content)
    [problem] = problems(tmp_path, platformFile="platform.json")
    assert problem.key == "modelcar:platformFile"
    assert problem.value.startswith("platform.json is not JSON: ")
    assert "JSON object" in problem.allowed
    assert "make platform" in problem.fix


@pytest.mark.parametrize("values", [[], None, "x", 5])
def test_platform_file_that_is_not_an_object_is_told(tmp_path: Path, values: Any) -> None:
    [problem] = problems(write_platform(tmp_path, values), platformFile="platform.json")
    assert problem.key == "modelcar:platformFile"


def test_platform_file_that_is_a_folder_is_told(tmp_path: Path) -> None:
    [problem] = problems(tmp_path, platformFile=".")
    assert problem.key == "modelcar:platformFile"


def test_shared_memory_that_nobody_set_may_be_more_than_the_memory() -> None:
    """Kubernetes makes /dev/shm no larger than the memory; a small model needs neither setting."""
    assert load(memory="1Gi").shared_memory == "2Gi"
    assert load(memory="1Gi", sharedMemory="1Gi").shared_memory == "1Gi"
