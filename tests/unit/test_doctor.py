"""What `make doctor` finds, and that each finding comes with its fix."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from components.cluster.access import ClusterError
from local import doctor, room
from local.__main__ import main as local_main
from local.doctor import Line, next_command, report
from local.downloads import web
from local.hidden_settings import without_secrets
from local.instance import PROJECT, load
from modelcar.errors import refuse
from tests.unit.test_components_settings import MINIMAL


def config(name: str) -> dict[str, Any]:
    found = yaml.safe_load((PROJECT / f"Pulumi.{name}.yaml").read_text())["config"]
    return {key.removeprefix("modelcar:"): value for key, value in found.items()}


def lines_of(name: str, settings: dict[str, Any]) -> dict[str, Line]:
    return {line.part: line for line in doctor.doctor(load("local"), name, settings)}


@pytest.fixture(autouse=True)
def away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials, tools or network of this machine."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(doctor, "_said", lambda *_: None)
    monkeypatch.setattr("components.stack.reachability.refusal", lambda *_: "no route")
    for name in ("PULUMI_BACKEND_URL", "PULUMI_ACCESS_TOKEN", "PULUMI_HOME", "PULUMI_CREDENTIALS_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("mode", "unreachable", "state"),
    [("auto", "", "note"), ("auto", "no route", "missing"), ("source", "", "missing")],
)
def test_go_can_be_missing_where_tools_are_downloaded(
    mode: str, unreachable: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELCAR_CACHE", str(tmp_path))
    monkeypatch.setenv("MODELCAR_TOOLS", mode)
    (tmp_path / "tools/bin").mkdir(parents=True)  # of a build that was interrupted
    monkeypatch.setattr(web.WEB, "unreachable", lambda: unreachable)
    line = next(line for line in doctor._embedded(running=False) if line.part == "go")
    assert line.state == state
    assert ("needed only for what has no release" in line.found) == (state == "note")
    assert "install Go" in line.fix


OWN = {"platformFile": "nowhere.json", "model": "tiny-qwen2", "namespace": "models", "serviceName": "a"}
OWN |= {"registry": "localhost:5001/models", "registryInsecure": "true", "kubeContext": "mine"}


@pytest.mark.parametrize("started", [False, True], ids=["before make up", "after it"])
def test_the_local_stack_on_a_cluster_of_ones_own_is_asked_of_that_one(
    started: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.cluster.access.Cluster.of", lambda _: Answers())
    monkeypatch.setattr("components.stack.reachability.refusal", lambda *_: None)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    own = OWN
    if started:
        written = {"serverImage": f"vllm@sha256:{'0' * 64}", "gpuCount": 0, "builder": "theirs"}
        (tmp_path / "platform.json").write_text(json.dumps(written))
        own = {**OWN, "platformFile": str(tmp_path / "platform.json")}
    found = lines_of("local", own)
    assert not {"memory", "disk", "go", "GPU", "platform"} & set(found)
    assert [found[part].state for part in ("machine", "settings", "registry", "cluster")] == ["ok"] * 4
    assert found["KServe"].state == "ok"
    assert ("builder theirs" in found) == started


def test_a_cluster_without_a_registry_is_told_as_make_up_does() -> None:
    found = lines_of("local", {**config("local"), "kubeContext": "mine"})
    assert found["settings: modelcar:registry"].state == "missing"


@pytest.mark.parametrize(
    ("free", "running", "state"),
    [(5, False, "ok"), (3, False, "note"), (1, False, "missing"), (1, True, None)],
)
def test_less_memory_takes_the_small_server_and_a_platform_that_runs_has_its_own(
    free: int, running: bool, state: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = SimpleNamespace(available=free * 2**30)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    found = {line.part: line for line in doctor._embedded(running=running)}
    assert (found["memory"].state if "memory" in found else None) == state


def test_disk_is_that_of_the_folders_that_are_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def on(*, cache: float, state: float) -> dict[str, str]:
        free = {"MODELCAR_STATE": state, "MODELCAR_CACHE": cache}

        def disks(given: Iterable[room.Need]) -> list[room.Disk]:
            assert {need.name: need.folder for need in given} == folders
            return [room.Disk(int(free[need.name] * 2**30), (need,)) for need in given]

        monkeypatch.setattr(room, "disks", disks)
        found = doctor._embedded(running=True)
        return {line.part: line.state for line in found if line.part.startswith("disk")}

    folders = {"MODELCAR_STATE": tmp_path / "state", "MODELCAR_CACHE": tmp_path / "cache"}
    for name, folder in folders.items():
        monkeypatch.setenv(name, str(folder))
    parts = ("disk of MODELCAR_STATE", "disk of MODELCAR_CACHE")
    assert on(cache=6, state=1) == dict.fromkeys(parts, "ok")
    assert on(cache=5, state=0.1) == dict(zip(parts, ("missing", "note"), strict=True))
    assert on(cache=1, state=1) == dict(zip(parts, ("ok", "missing"), strict=True))


def test_a_platform_that_was_stopped_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = {"serverImage": f"vllm@sha256:{'0' * 64}", "gpuCount": 0, "registry": "198.18.0.2:5000/models"}
    (tmp_path / "platform.json").write_text(json.dumps(written))
    own = {**config("local"), "platformFile": str(tmp_path / "platform.json")}
    monkeypatch.setattr("local.platform.supervisor", lambda _: None)
    found = lines_of("local", own)
    assert found["platform"] == Line("platform", "note", "it does not run", "make up starts it")
    assert not {"registry", "cluster"} & set(found)


def test_the_platforms_file_is_named_where_it_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELCAR_STATE", str(tmp_path / "state"))
    for name in ("local", "other"):
        found = doctor.doctor(load(name), "local", config("local"))
        [line] = [line for line in found if line.part == "platform"]
        assert line.found.startswith(str(tmp_path / f"state/{name}/platform.json"))


def test_a_machine_without_namespaces_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise refuse("namespaces", "root has none", allowed="one", fix="start it with `--privileged`")

    monkeypatch.setattr("local.namespaces.require", refused)
    found = lines_of("local", config("local"))["machine"]
    assert (found.state, found.fix) == ("missing", "start it with `--privileged`")


def test_a_bare_machine_is_told_all_that_it_lacks_with_the_fix() -> None:
    found = lines_of("dev", config("dev"))
    missing = {part for part, line in found.items() if line.state == "missing"}
    assert missing >= {"git", "make", "Google credentials", "gke-gcloud-auth-plugin", "registry"}
    assert missing >= {"lock of qwen-oci", "Pulumi backend"}
    assert all(line.fix for line in found.values() if line.state == "missing")
    assert found["cluster"].state == "note", "this stack makes it"
    text = list(report(list(found.values())))
    assert text[-1] == f"{len(missing)} missing"


def test_wrong_settings_are_told_by_key() -> None:
    found = lines_of("dev", {**config("dev"), "gpuCount": 9, "cpus": 1})
    assert found["settings: modelcar:cpus"].fix.endswith("did you mean modelcar:cpu?")
    assert "modelcar:gpuCount" in " ".join(found)


def test_a_secret_of_the_stack_is_neither_opened_nor_a_mistake() -> None:
    own = {**MINIMAL, "registryUsername": "u", "registryPassword": {"secure": "v1:abc"}}
    found = lines_of("other", own)
    assert found["settings"].state == "ok"
    assert "v1:abc" not in str(found)


SECRET = {"secure": "v1:abc"}
HIDDEN: dict[str, dict[str, Any]] = {
    "a variable": {"serverEnv": ["A=b", SECRET, SECRET]},
    "all variables": {"serverEnv": SECRET},
    "an argument": {"serverArgs": ["--api-key", SECRET, "--max-num-seqs", "4"]},
    "all arguments": {"serverArgs": SECRET},
    "the command": {"serverCommand": SECRET},
    "a word of the command": {"serverCommand": ["vllm", SECRET]},
    "all models": {"models": SECRET, "model": None, "serviceName": None},
    "a variable of a model": {
        "models": [{"name": "a", "model": "a", "serverEnv": [SECRET]}],
        "model": None,
        "serviceName": None,
    },
    "all variables of a model": {
        "models": [{"name": "a", "model": "a", "serverEnv": SECRET}],
        "model": None,
        "serviceName": None,
    },
    "the cluster": {"kubeconfig": SECRET},
}


def hiding(changes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**MINIMAL, **changes}.items() if value is not None}


@pytest.mark.parametrize("changes", HIDDEN.values(), ids=HIDDEN.keys())
def test_secrets_in_any_place_are_no_mistakes_and_all_else_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.setattr("components.cluster.access.Cluster.of", lambda _: Answers(gpus=1))
    monkeypatch.setattr("components.stack.reachability.refusal", lambda *_: None)
    found = lines_of("other", hiding(changes))
    assert found["settings"].state == "ok"
    assert found["secrets"].found.endswith(": secret, not opened here")
    assert found["registry"].state == "ok"
    assert not [line for line in found.values() if line.part.startswith("settings: ")]
    assert "v1:abc" not in str(found)
    if "kubeconfig" in changes:
        assert (found["cluster"].state, "KServe" in found) == ("note", False)
    else:
        assert (found["cluster"].state, found["KServe"].state) == ("ok", "ok")


def test_a_secret_kubeconfig_is_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(_: Any) -> Any:
        pytest.fail("another cluster is asked")

    monkeypatch.setattr("components.cluster.access.Cluster.of", opened)
    found = lines_of("other", hiding({"kubeconfig": SECRET}))
    assert found["cluster"].found == "modelcar:kubeconfig is a secret, not opened here"
    assert "kubeconfig" not in found, "what stands in for it is no file that is missing"
    assert found["registry"].state == "missing", "no route"


def test_what_is_wrong_beside_a_secret_is_told() -> None:
    models = [{"name": "a", "model": "a", "serverEnv": [SECRET], "gpuCount": 99}]
    found = lines_of("other", hiding({"models": models, "model": None, "serviceName": None}))
    assert found["settings: modelcar:models[0].gpuCount"].state == "missing"
    assert "settings: modelcar:models[0].serverEnv" not in found


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"cpu": SECRET}, "cpu"),
        ({"vllm": {"maxModelLen": SECRET}}, "vllm"),
        ({"registry": SECRET}, "registry"),
    ],
)
def test_a_secret_that_a_preview_refuses_is_told_once(changes: dict[str, Any], key: str) -> None:
    found = lines_of("other", hiding(changes))
    [line] = [line for line in found.values() if line.part.startswith("settings")]
    assert line.part == f"settings: modelcar:{key}"
    assert "a Pulumi secret" in line.found


def test_the_local_stacks_server_is_chosen_beside_secrets() -> None:
    own = {"platformFile": "nowhere.json", "models": SECRET, "namespace": "models"}
    assert "model server" in lines_of("local", own)


@pytest.mark.parametrize(("limit", "usage", "state"), [(4, 0, "ok"), (4, 4, "missing"), (0, 0, "missing")])
def test_quota_is_compared_with_what_the_pool_may_take(
    monkeypatch: pytest.MonkeyPatch, limit: int, usage: int, state: str
) -> None:
    rows = [{"metric": "PREEMPTIBLE_NVIDIA_L4_GPUS", "limit": limit, "usage": usage}]
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(doctor, "_said", lambda *_: json.dumps({"quotas": rows}))
    line = lines_of("dev", config("dev"))["quota PREEMPTIBLE_NVIDIA_L4_GPUS"]
    assert line.state == state
    assert f"{limit - usage} of {limit} free, and the pool may take 1" in line.found


def test_uv_is_looked_for_where_pulumis_own_language_host_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {"pulumi-language-python": "/usr/local/bin/pulumi-language-python"}
    monkeypatch.setattr("shutil.which", there.get)
    monkeypatch.setenv("MODELCAR_CACHE", str(tmp_path))
    monkeypatch.delenv("UV", raising=False)
    line = lines_of("other", MINIMAL)["uv"]
    assert line.state == "missing"
    assert "take pulumi and pulumi-language-python off PATH" in line.fix
    (tmp_path / "uv/bin").mkdir(parents=True)
    (tmp_path / "uv/bin/uv").touch()
    line = lines_of("other", MINIMAL)["uv"]
    assert (line.state, str(tmp_path / "uv/bin/uv") in line.found) == ("note", True)
    there["uv"] = "/usr/bin/uv"
    assert lines_of("other", MINIMAL)["uv"].state == "ok"
    del there["pulumi-language-python"]
    assert "uv" not in lines_of("other", MINIMAL)


#: What runs the command, which no other test here does.
SAID = doctor._said
FIRST = "cloudresourcemanager.googleapis.com serviceusage.googleapis.com"
NO_ACCOUNT = """
case "$1 $2" in
  "auth list") echo "No credentialed accounts." >&2 ;;
  "services list") echo compute.googleapis.com ;;
  *) exit 1 ;;
esac
"""
READY = """
case "$1 $2 $3" in
  "auth list --filter=status:ACTIVE") echo me@example.org ;;
  "services list --enabled") printf '%s\\n' cloudresourcemanager.googleapis.com serviceusage.googleapis.com ;;
  *) exit 1 ;;
esac
"""


def with_gcloud(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a gcloud that answers so on PATH, and nothing else that doctor looks for."""
    (folder / "gcloud").write_text(f"#!/bin/sh\n{script}")
    (folder / "gcloud").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr("shutil.which", lambda name: str(folder / name) if name == "gcloud" else None)
    monkeypatch.setattr(doctor, "_said", SAID)


@pytest.mark.parametrize(
    ("script", "account", "apis"),
    [(READY, "ok", "ok"), (NO_ACCOUNT, "missing", "missing"), ("exit 1", "missing", "note")],
)
def test_a_login_of_gcloud_and_the_first_apis_are_looked_for(
    script: str, account: str, apis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gcloud(script, tmp_path, monkeypatch)
    found = lines_of("dev", config("dev"))
    assert (found["gcloud account"].state, found["Google APIs"].state) == (account, apis)
    if account == "ok":
        assert found["gcloud account"].found == "me@example.org"
    else:
        assert found["gcloud account"].fix == "gcloud auth login --update-adc"
    if apis != "ok":
        project = config("dev")["google"]["project"]
        assert found["Google APIs"].fix == f"gcloud services enable {FIRST} --project={project}"


def test_one_login_gives_both_credentials_of_google() -> None:
    assert lines_of("dev", config("dev"))["Google credentials"].fix == "gcloud auth login --update-adc"


@pytest.mark.parametrize(
    ("text", "state", "found"),
    [
        ("", "missing", "cannot be read, or is not as gcloud writes it"),
        ("[]", "missing", "is not as gcloud writes it"),
        ('"text"', "missing", "is not as gcloud writes it"),
        ("{}", "missing", "is not as gcloud writes it"),
        ('{"type": "authorized_user"}', "ok", "(authorized_user)"),
        ('{"type": "service_account"}', "note", "(service_account)"),
    ],
)
def test_broken_credentials_are_told(
    text: str, state: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "adc.json").write_text(text)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "adc.json"))
    line = lines_of("dev", config("dev"))["Google credentials"]
    assert (line.state, found in line.found) == (state, True), line
    assert str(tmp_path / "adc.json") in line.found
    assert (line.fix == doctor.LOGIN) == (state == "missing")


def test_an_option_that_there_is_not_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["local", "doctor", "dev", "--jsn"])
    with pytest.raises(SystemExit) as ended:
        local_main()
    assert ended.value.code == 2
    assert "unrecognized arguments: --jsn" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["local", "doctor", "dev", "--json"])
    assert local_main() == 1
    assert json.loads(capsys.readouterr().out)[0]["part"] == "modelcar"


@pytest.mark.parametrize("page", ["docs/google-cloud.md", "templates/modelcar-gke/README.md"])
def test_pages_begin_with_the_commands_that_it_names(page: str) -> None:
    text = (PROJECT / page).read_text()
    assert doctor.LOGIN in text
    assert f"gcloud services enable {' '.join(doctor.FIRST_APIS)}" in text
    assert "application-default login" not in text


class Answers:
    """A cluster that answers what a test says."""

    name = "https://cluster.example"

    def __init__(
        self,
        enabled: bool = True,
        kserve: bool = True,
        gpus: int = 0,
        uid: int = 1010,
        kinds: list[str] | None = None,
    ) -> None:
        self.enabled, self.kserve, self.gpus, self.uid = enabled, kserve, gpus, uid
        self.kinds = kinds

    def create(self, path: str, body: dict[str, Any], *, dry_run: bool) -> dict[str, Any]:
        assert dry_run, "nothing is made"
        return body

    def get(self, path: str) -> dict[str, Any] | None:
        if path == "/version":
            return {"gitVersion": "v1.34.4"}
        if "serving.kserve.io" in path:
            return {} if self.kserve else None
        if path.endswith("inferenceservice-config"):
            section = {"enableModelcar": self.enabled, "uidModelcar": self.uid}
            return {"data": {"storageInitializer": json.dumps(section)}}
        if path == "/apis/keda.sh/v1alpha1" and self.kinds:
            return {"resources": [{"kind": kind} for kind in self.kinds]}
        if path == "/api/v1/nodes":
            return {"items": [{"status": {"allocatable": {"nvidia.com/gpu": str(self.gpus)}}}]}
        return None


@pytest.mark.parametrize(
    ("answers", "part", "state", "text"),
    [
        (Answers(), "cluster", "ok", "v1.34.4"),
        (Answers(enabled=False), "KServe", "missing", "modelcar off"),
        (Answers(uid=0), "KServe", "missing", "uidModelcar: 0"),
        (Answers(kserve=False), "KServe", "missing", "not there"),
        (Answers(), "KServe's webhooks", "ok", "answer the API server"),
        (Answers(), "GPUs", "missing", "0 on one node, and a pod needs 1"),
        (Answers(gpus=1), "GPUs", "ok", "1 on one node"),
    ],
)
def test_the_cluster_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, answers: Answers, part: str, state: str, text: str
) -> None:
    monkeypatch.setattr("components.cluster.access.Cluster.of", lambda _: answers)
    line = lines_of("other", MINIMAL)[part]
    assert line.state == state
    assert text in line.found


@pytest.mark.parametrize(("kinds", "state"), [(None, "missing"), (["ScaledObject"], "ok")])
def test_keda_is_looked_for_where_a_model_needs_it(
    monkeypatch: pytest.MonkeyPatch, kinds: list[str] | None, state: str
) -> None:
    answers = Answers(kinds=kinds)
    monkeypatch.setattr("components.cluster.access.Cluster.of", lambda _: answers)
    trigger = {"type": "prometheus", "query": "sum(waiting)", "threshold": 5}
    scaling = json.dumps({"serverAddress": "http://prometheus:9090", "triggers": [trigger]})
    found = lines_of("other", {**MINIMAL, "maxReplicas": "2", "autoscaling": scaling})["KEDA"]
    assert found.state == state
    assert "KEDA" not in lines_of("other", MINIMAL)


def test_a_cluster_that_cannot_be_asked_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: Any) -> Any:
        raise ClusterError(0, "the API server does not answer")

    monkeypatch.setattr("components.cluster.access.Cluster.of", gone)
    line = lines_of("other", MINIMAL)["cluster"]
    assert (line.state, line.found) == ("missing", "the API server does not answer")


@pytest.mark.parametrize(
    ("lines", "name", "running", "command"),
    [
        (
            [Line("go", "missing", "not on PATH", "install Go")],
            "local",
            False,
            "install Go; then make doctor",
        ),
        ([Line("go", "ok", "1.26.6")], "local", False, "make up"),
        ([Line("go", "note", "old", "x")], "local", True, "make validate STACK=local"),
        ([Line("go", "ok", "1.26.6")], "dev", False, "make preview STACK=dev"),
    ],
)
def test_it_ends_with_the_next_command(lines: list[Line], name: str, running: bool, command: str) -> None:
    assert next_command(lines, name, running=running).startswith(command)


def test_a_platform_that_was_not_started_yet_is_no_mistake() -> None:
    config = {"platformFile": "nowhere.json", "model": "tiny-qwen2", "namespace": "models"}
    _, [line] = doctor._settings("local", *without_secrets(config))
    assert (line.state, line.fix) == ("note", "make up starts it")
    assert next_command([line], "local", running=False) == "make up"
    _, [line] = doctor._settings("test", *without_secrets(config))
    assert line.state == "missing"
