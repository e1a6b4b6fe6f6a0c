"""The platform with programs of other versions: what may be asked for, and what containerd is told."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from local import containerd, other_versions, plan, platform, up
from local.instance import KSERVE_VERSION, KUBERNETES_VERSION, Instance
from local.tool_list import CONTAINERD_VERSION, NEWER_KSERVE, NEWER_KSERVE_VERSION
from local.tools import Toolbox
from modelcar.errors import InputError

NAMES = ("kserve-manager", "containerd", "containerd-shim-runc-v2", "runc", "bridge")
TOOLS = Toolbox({name: Path("/own") / name for name in NAMES}, "", Path("/kserve"))


@pytest.fixture(autouse=True)
def nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_versions, "find_tool", lambda name, _: Path("/other") / name)
    monkeypatch.setattr(other_versions, "kserve_folder", lambda _, version: Path("/kserve") / version)


@pytest.mark.parametrize("said", [None, "", KSERVE_VERSION, "0.19"])
def test_the_platforms_own_kserve_is_the_default(monkeypatch: pytest.MonkeyPatch, said: str | None) -> None:
    if said is None:
        monkeypatch.delenv("MODELCAR_KSERVE", raising=False)
    else:
        monkeypatch.setenv("MODELCAR_KSERVE", said)
    assert other_versions.chosen_kserve(TOOLS, print) == TOOLS


@pytest.mark.parametrize("said", ["0.20", NEWER_KSERVE_VERSION])
def test_another_one_is_asked_for_by_its_version(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("MODELCAR_KSERVE", said)
    lines: list[str] = []
    found = other_versions.chosen_kserve(TOOLS, lines.append)
    assert found["kserve-manager"] == f"/other/{NEWER_KSERVE}"
    assert found.kserve == Path("/kserve") / NEWER_KSERVE_VERSION
    assert lines == [f"KServe {NEWER_KSERVE_VERSION}, as MODELCAR_KSERVE says"]


def test_one_that_cannot_be_had_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELCAR_KSERVE", "0.21")
    with pytest.raises(InputError, match=r"(?s)MODELCAR_KSERVE: 0\.21.*0\.16, 0\.19, 0\.20"):
        other_versions.chosen_kserve(TOOLS, print)


@pytest.mark.parametrize(("short", "version"), [("2.4", 3), ("2.1", 3), ("1.7", 2)])
def test_containerd_reads_a_file_of_its_own_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: str, version: int
) -> None:
    monkeypatch.setenv("MODELCAR_CACHE", str(tmp_path))
    tools = TOOLS if short == "2.4" else other_versions.with_containerd(TOOLS, short, print)
    instance = Instance("local", 3, tmp_path / "state")
    instance.state.mkdir()
    service = containerd.service(instance, tools, "registry.example/pause@sha256:0")
    written = tomllib.loads((instance.state / "containerd.toml").read_text())
    assert written["version"] == version
    assert "registry.example/pause@sha256:0" in (instance.state / "containerd.toml").read_text()
    hosts = instance.state / "registries" / instance.registry / "hosts.toml"
    assert f"http://{instance.registry}" in hosts.read_text()
    # The shim is found by its name.
    folder = Path(service["argv"][0]).parent
    assert str(folder) in service["env"]["PATH"].split(":")


def test_layers_are_kept_as_erofs_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("local.containerd.shutil.which", lambda name: f"/usr/bin/{name}")
    filesystems = Path("/proc/filesystems").read_text().split()
    monkeypatch.setenv("MODELCAR_SNAPSHOTTER", "erofs")
    if "erofs" not in filesystems:
        with pytest.raises(InputError, match="the kernel has no erofs"):
            containerd.snapshotter()
        return
    instance = Instance("local", 3, tmp_path / "state")
    instance.state.mkdir()
    containerd.service(instance, TOOLS, "registry.example/pause@sha256:0")
    plugins = tomllib.loads((instance.state / "containerd.toml").read_text())["plugins"]
    assert plugins["io.containerd.cri.v1.images"]["snapshotter"] == "erofs"
    [unpack] = plugins["io.containerd.transfer.v1.local"]["unpack_config"]
    assert (unpack["snapshotter"], unpack["differ"]) == ("erofs", "erofs")


def test_a_machine_without_erofs_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.containerd.shutil.which", lambda _: None)
    monkeypatch.setenv("MODELCAR_SNAPSHOTTER", "erofs")
    with pytest.raises(InputError, match=r"mkfs\.erofs is not on PATH"):
        containerd.snapshotter()
    monkeypatch.setenv("MODELCAR_SNAPSHOTTER", "zfs")
    with pytest.raises(InputError, match="overlayfs or erofs"):
        containerd.snapshotter()


OWN = replace(TOOLS, kserve=Path(f"/cache/tools/kserve-{KSERVE_VERSION}"))
OWN_VERSIONS = {
    "KServe": KSERVE_VERSION,
    "Kubernetes": KUBERNETES_VERSION,
    "containerd": CONTAINERD_VERSION,
    "snapshotter": "overlayfs",
}


def test_what_a_platform_is_started_with_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELCAR_CACHE", str(tmp_path))
    assert plan.versions(OWN) == OWN_VERSIONS
    older = replace(other_versions.with_older_kubernetes(OWN, print), runs_kserve=False)
    found = plan.versions(other_versions.with_containerd(older, "1.7", print))
    assert found == OWN_VERSIONS | {"KServe": "off", "Kubernetes": "1.34", "containerd": "1.7"}


@pytest.mark.parametrize(
    ("started", "again"),
    [
        (OWN_VERSIONS, ""),
        ({}, ""),  # by a version before, which did not write it down
        (OWN_VERSIONS | {"KServe": "0.16.0"}, f"with KServe 0.16.0, and not {KSERVE_VERSION}"),
        (OWN_VERSIONS | {"snapshotter": "erofs"}, "with snapshotter erofs, and not overlayfs"),
    ],
)
def test_a_platform_of_other_versions_is_started_again(
    started: dict[str, str],
    again: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    instance, done = Instance("local", 3, tmp_path), []
    (tmp_path / "plan.json").write_text(json.dumps({"versions": started} if started else {}))
    monkeypatch.delenv("MODELCAR_SNAPSHOTTER", raising=False)
    monkeypatch.setattr(platform, "supervisor", lambda _: object())
    monkeypatch.setattr(platform, "down", lambda *_: done.append("down"))
    monkeypatch.setattr(platform, "up", lambda *_: done.append("up"))
    up.start_platform(instance, OWN, None)
    assert done == (["down", "up"] if again else ["up"])
    assert capsys.readouterr().out.strip() == (
        f"the platform runs {again}: starting it again" if again else ""
    )


@pytest.mark.parametrize("runs", [KSERVE_VERSION, "0.16.0"])
def test_a_controller_that_runs_keeps_its_own_webhooks(
    runs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance, applied = Instance("local", 3, tmp_path), []
    (tmp_path / "plan.json").write_text(json.dumps({"versions": OWN_VERSIONS | {"KServe": runs}}))
    monkeypatch.setattr(platform, "supervisor", lambda _: object())
    monkeypatch.setattr("local.kserve.webhooks", lambda *_: [])
    monkeypatch.setattr(platform, "_apply", lambda *_: applied.append("webhooks"))
    platform._install_webhooks(instance, OWN)
    assert applied == (["webhooks"] if runs == KSERVE_VERSION else [])
