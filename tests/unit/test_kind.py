"""`make up KIND=1`: what is made in Docker, what is refused, and that nothing else is touched."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.config.loading import load
from local import kind, own_cluster, up
from local.instance import Instance
from local.tools import Toolbox
from modelcar.errors import InputError
from tests.conftest import PROJECT

OTHERS = {"state": "running", "labels": {}, "networks": ["bridge"]}


class Docker:
    """A machine with fake programs, whose world the test reads and writes."""

    def __init__(self, folder: Path) -> None:
        self.programs, self.file = folder / "cache" / "tools" / "bin", folder / "world.json"
        self.programs.mkdir(parents=True)
        source = (Path(__file__).parent / "fake_docker.py").read_text()
        for name in ("docker", "kind", "buildx"):
            program = self.programs / name
            program.write_text(f"#!{sys.executable}\n{source}")
            program.chmod(0o755)
        self.change(containers={"db": OTHERS}, clusters={"theirs": []}, ports=[], files={}, folders=[])
        self.change(builders=["theirs"])

    @property
    def world(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.file.read_text()) if self.file.exists() else {}
        return found

    def change(self, **values: Any) -> None:
        self.file.write_text(json.dumps(self.world | values))


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    made = Docker(tmp_path)
    monkeypatch.setenv("PATH", str(made.programs))
    monkeypatch.setenv("FAKE_DOCKER", str(made.file))
    monkeypatch.setenv("MODELCAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MODELCAR_STATE", str(tmp_path / "state"))
    monkeypatch.delenv(kind.PORT_VARIABLE, raising=False)
    return made


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    return Instance("local", 0, tmp_path / "state" / "local")


def made(instance: Instance, word: str = "1", **own: Any) -> list[str]:
    said: list[str] = []
    kind.up(instance, word, own, said.append)
    return said


def test_nodes_take_the_registrys_container_for_localhost(docker: Docker, instance: Instance) -> None:
    assert len(made(instance)) == 2
    registry = docker.world["containers"]["modelcar-registry"]
    assert (registry["state"], registry["port"]) == ("running", "5001")
    assert "kind" in registry["networks"]
    assert docker.world["files"] == {
        "modelcar-control-plane:/etc/containerd/certs.d/localhost:5001/hosts.toml": (
            '[host."http://modelcar-registry:5000"]\n'
        )
    }
    assert "kind-modelcar" in (instance.state / "kind.kubeconfig").read_text()


def test_it_is_served_there_by_kserve_that_this_program_installs(docker: Docker, instance: Instance) -> None:
    made(instance)
    settings = up.stack_settings()
    assert own_cluster.is_chosen(settings), "the embedded platform is not started"
    tools = Toolbox({"buildx": docker.programs / "buildx"}, "", Path("/kserve"), embedded=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_cluster, "pinned", lambda image, _: f"{image}@sha256:{'0' * 64}")
        patch.setattr(own_cluster, "_builder", lambda name, _: name)
        own_cluster.write_settings(instance, tools, settings, lambda _: None)
    values = {"modelcar:platformFile": str(instance.settings_file), "modelcar:model": "tiny-qwen2"}
    loaded = load({**values, "modelcar:namespace": "demo"}, PROJECT)
    assert loaded.kserve.install
    assert (loaded.registry, loaded.registry_insecure) == ("localhost:5001/models", True)
    assert (loaded.kube_context, loaded.builder) == ("kind-modelcar", "modelcar-kind")
    assert loaded.kubeconfig == str(instance.state / "kind.kubeconfig")


@pytest.mark.parametrize(("machine", "architecture"), [("arm64", "arm64"), ("x86_64", "amd64")])
def test_images_are_for_the_processor_of_the_nodes(
    machine: str, architecture: str, docker: Docker, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    made(instance)
    tools = Toolbox({"buildx": docker.programs / "buildx"}, "", Path("/kserve"), embedded=False)
    monkeypatch.setattr(own_cluster, "pinned", lambda image, _: f"{image}@sha256:{'0' * 64}")
    monkeypatch.setattr(own_cluster, "_builder", lambda name, _: name)
    own_cluster.write_settings(instance, tools, up.stack_settings(), lambda _: None)
    values = {"modelcar:platformFile": str(instance.settings_file), "modelcar:model": "tiny-qwen2"}
    assert load({**values, "modelcar:namespace": "demo"}, PROJECT).architecture == architecture


def test_a_second_run_makes_nothing_and_starts_what_is_stopped(docker: Docker, instance: Instance) -> None:
    made(instance)
    before = docker.world
    assert made(instance) == []
    kind.stop(instance, print)
    states = {name: one["state"] for name, one in docker.world["containers"].items()}
    assert states == {"db": "running", "modelcar-registry": "exited", "modelcar-control-plane": "exited"}
    assert made(instance) == []
    assert docker.world == before


def test_what_is_made_goes_and_nothing_else(docker: Docker, instance: Instance) -> None:
    before = docker.world
    for builders in (["theirs"], ["theirs", "modelcar-kind"]):  # it is made later, by local/own_cluster.py
        made(instance)
        docker.change(builders=builders)
        kind.remove(instance, print)
        left = docker.world
        for key in ("containers", "clusters", "builders"):
            assert left[key] == before[key]
    kind.remove(instance, print)
    kind.stop(instance, print)
    assert kind.settings(instance.state) == {}


@pytest.mark.parametrize("cut", ["", "{", "[]", '{"state": "x"}'])
def test_what_a_full_disk_cut_is_named_and_down_and_clean_go_on(
    cut: str, docker: Docker, instance: Instance
) -> None:
    made(instance)
    file = instance.state / "kind.json"
    file.write_text(cut)
    named = rf"(?s){file}: cannot be read.*fix: make clean.*kind delete cluster --name NAME"
    with pytest.raises(InputError, match=named):
        up.stack_settings()
    for work in (kind.stop, kind.remove):
        said: list[str] = []
        work(instance, said.append)
        [line] = said
        assert str(file) in line


def test_a_full_disk_leaves_what_is_written_down(
    docker: Docker, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(instance)
    before = kind.read(instance.state)
    assert before

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            replace(before, ready=False).write()
    assert kind.read(instance.state) == before
    assert not [path for path in instance.state.iterdir() if path.name.startswith(".kind")]


def test_without_kind_down_and_clean_ask_docker_nothing(
    docker: Docker, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    kind.stop(instance, print)
    kind.remove(instance, print)


def test_an_interrupted_run_is_gone_on_with(docker: Docker, instance: Instance) -> None:
    docker.change(slow=True)
    with pytest.raises(InputError, match=r"(?s)kind create cluster: .*kubeadm.*run it by hand: kind create"):
        made(instance)
    docker.change(slow=False)
    made(instance)
    assert docker.world["files"], "the cluster was made anew"


@pytest.mark.parametrize(
    ("world", "expected"),
    [
        ({"down": True}, r"docker: Cannot connect to the Docker daemon.*fix: start it"),
        (
            {"clusters": {"modelcar": []}},
            r"cluster modelcar: this checkout did not make it.*KIND=OTHER-NAME.*kind delete cluster --name",
        ),
        (
            {"containers": {"modelcar-registry": OTHERS}},
            r"container modelcar-registry: this checkout did not make it.*docker rm --force modelcar-reg",
        ),
        ({"ports": ["5001"]}, r"MODELCAR_KIND_PORT: 5001 is in use.*fix: MODELCAR_KIND_PORT=5002 make up"),
    ],
    ids=["daemon", "cluster", "container", "port"],
)
def test_what_is_somebody_elses_is_refused_and_left(
    docker: Docker, instance: Instance, world: dict[str, Any], expected: str
) -> None:
    docker.change(**world)
    before = docker.world
    with pytest.raises(InputError, match=f"(?s){expected}"):
        made(instance)
    assert docker.world == before
    assert kind.read(instance.state) is None, "make clean would remove it"


def test_another_name_and_port(docker: Docker, instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    docker.change(ports=["5001"], clusters={"modelcar": []})
    monkeypatch.setenv(kind.PORT_VARIABLE, "5002")
    made(instance, "mine")
    assert kind.settings(instance.state)["registry"] == "localhost:5002/models"
    with pytest.raises(InputError, match=r"KIND: modelcar\n.*allowed: mine"):
        made(instance)


@pytest.mark.parametrize("missing", ["docker", "kind"])
def test_a_program_that_is_not_there_is_named(docker: Docker, instance: Instance, missing: str) -> None:
    (docker.programs / missing).unlink()
    with pytest.raises(InputError, match=rf"(?s){missing}: not on PATH.*fix: install it: https://"):
        made(instance)


def test_one_place_to_serve(docker: Docker, instance: Instance) -> None:
    with pytest.raises(InputError, match=r"(?s)KIND: beside modelcar:registry.*config rm"):
        made(instance, registry="registry.example.com/models")
    with pytest.raises(InputError, match="KIND: A B"):
        made(instance, "A B")
    instance.state.mkdir(parents=True)
    (instance.state / "plan.json").touch()
    with pytest.raises(InputError, match=r"(?s)the embedded platform has data here.*make clean"):
        made(instance)
    shutil.rmtree(instance.state)
    made(instance)


def test_a_cluster_that_was_deleted_by_hand_is_made_anew(docker: Docker, instance: Instance) -> None:
    assert kind.up(instance, "1", {}, print)
    assert not kind.up(instance, "1", {}, print)
    containers = {
        name: one for name, one in docker.world["containers"].items() if "control-plane" not in name
    }
    docker.change(clusters={"theirs": []}, containers=containers, files={})
    assert kind.up(instance, "1", {}, print), "what the stack had there is gone"
    assert "modelcar" in docker.world["clusters"]
    assert docker.world["files"], "its node finds the registry"


def test_a_registry_that_was_removed_by_hand_is_reached_by_the_nodes_again(
    docker: Docker, instance: Instance
) -> None:
    made(instance)
    containers = docker.world["containers"]
    del containers["modelcar-registry"]
    docker.change(containers=containers)
    assert kind.up(instance, "1", {}, print)
    assert "kind" in docker.world["containers"]["modelcar-registry"]["networks"]


def test_later_commands_need_no_kind(
    docker: Docker, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    own: dict[str, Any] = {}
    monkeypatch.setattr(up, "file_settings", lambda: own)
    assert not up.start_kind(instance, up.Phases()), "nothing was made"
    assert kind.read(instance.state) is None
    made(instance, "mine")
    kind.stop(instance, print)
    own["registry"] = "registry.example.com/models"
    assert not up.start_kind(instance, up.Phases()), "the stack serves elsewhere"
    assert docker.world["containers"]["mine-registry"]["state"] == "exited"
    own.clear()
    assert not up.start_kind(instance, up.Phases())
    states = {one["state"] for name, one in docker.world["containers"].items() if name.startswith("mine")}
    assert states == {"running"}
