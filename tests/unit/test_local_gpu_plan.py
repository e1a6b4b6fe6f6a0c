"""What the device plugin is told, the driver's folder, and when the plan has a plugin at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from local import cgroups, driver, plan, platform
from local.gpu import Card, Gpus
from local.instance import Instance
from local.pki import write_pki
from local.tool_build import fingerprint
from local.tool_list import DEVICE_PLUGIN, ON_REQUEST, TOOLS
from local.tools import Toolbox
from modelcar.errors import InputError

VERSION = "580.159.04"
PROGRAMS = (
    *("docker-registry", "buildkitd", "runc", "etcd", "kube-apiserver", "kube-controller-manager", "ip"),
    *("kube-scheduler", "kserve-manager", "containerd", "containerd-shim-runc-v2", "bridge", "kubelet"),
)


def cards(*indexes: int) -> tuple[Card, ...]:
    return tuple(
        Card(index, "NVIDIA H100", f"GPU-{index}", 2**36, 2**36, (9, 0), Path(f"/dev/nvidia{index}"))
        for index in indexes
    )


def gpus(libraries: Path | None, *indexes: int) -> Gpus:
    return Gpus(cards(*(indexes or (0,))), VERSION, "13.0", libraries)


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    made = Instance("local", 5, tmp_path / "state")
    made.state.mkdir()
    write_pki(made)
    return made


def written(instance: Instance, found: Gpus | None) -> dict[str, Any]:
    names = (*PROGRAMS, DEVICE_PLUGIN) if found else PROGRAMS
    tools = Toolbox({name: Path("/bin") / name for name in names}, "", Path("/kserve"))
    document: dict[str, Any] = json.loads(plan.write_plan(instance, tools, "pause", found).read_text())
    return document


def test_the_plugin_runs_where_there_are_cards_only(instance: Instance, tmp_path: Path) -> None:
    services = {service["name"]: service for service in written(instance, gpus(tmp_path))["services"]}
    config = plan.device_plugin_file(instance)
    assert services["device-plugin"]["argv"] == [
        f"/bin/{DEVICE_PLUGIN}",
        f"--config={config}",
        "--folder=/var/lib/kubelet/device-plugins",
    ]
    assert config.exists()
    assert "device-plugin" not in {service["name"] for service in written(instance, None)["services"]}
    assert not config.exists(), "what a former start was told is gone"


@pytest.mark.parametrize(
    ("processor", "told"), [("amd64", {}), ("arm64", {"ETCD_UNSUPPORTED_ARCH": "arm64"})]
)
def test_etcd_of_a_distribution_runs_on_arm64(
    processor: str, told: dict[str, str], instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before 3.5 it ends there at once, unless it is told; elsewhere it warns of what it does not know."""
    monkeypatch.setattr(plan, "architecture", lambda: processor)
    [etcd] = [service for service in written(instance, None)["services"] if service["name"] == "etcd"]
    assert etcd["env"] == told


def test_the_kubelets_fixed_path_is_covered_by_its_own_folder(instance: Instance) -> None:
    """It keeps kubelet.sock there whatever its --root-dir is; two platforms must not share it."""
    document = written(instance, None)
    assert document["covered"]["/var/lib/kubelet"] == str(instance.state / "kubelet")
    [kubelet] = [service for service in document["services"] if service["name"] == "kubelet"]
    assert f"--root-dir={instance.state}/kubelet" in kubelet["argv"]


def test_each_card_is_told_with_what_all_of_them_need(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tools").touch()
    monkeypatch.setattr(plan, "OPTIONAL_NODES", (str(tmp_path / "tools"), str(tmp_path / "modeset")))
    assert plan.device_plugin_config(gpus(None, 0, 3), tmp_path) == {
        "resource": "nvidia.com/gpu",
        "devices": [{"id": "GPU-0", "paths": ["/dev/nvidia0"]}, {"id": "GPU-3", "paths": ["/dev/nvidia3"]}],
        # The first two are needed, there or not: a card without them is told as unhealthy.
        "shared": ["/dev/nvidiactl", "/dev/nvidia-uvm", str(tmp_path / "tools")],
        "mounts": [{"host": str(tmp_path), "container": "/usr/local/nvidia"}],
    }


# --- the driver's folder -----------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with the driver's libraries among the system's own, and programs that tell of it."""
    libraries = tmp_path / "usr/lib/x86_64-linux-gnu"
    libraries.mkdir(parents=True)
    for name in ("libcuda", "libnvidia-ml", "libnvidia-ptxjitcompiler", "libnvidia-glcore"):
        (libraries / f"{name}.so.{VERSION}").write_text(name)
        (libraries / f"{name}.so.1").symlink_to(f"{name}.so.{VERSION}")
    (libraries / "libcuda.so").symlink_to("libcuda.so.1")
    (libraries / "libc.so.6").write_text("the system's")
    programs = tmp_path / "bin"
    programs.mkdir()
    listed = (
        f"\tlibcuda.so.1 (libc6) => /usr/lib32/libcuda.so.1\n\tlibcuda.so.1 (libc6,x86-64) => {libraries}"
    )
    scripts = {"ldconfig": f"cat <<'END'\n{listed}/libcuda.so.1\nEND", "nvidia-smi": "echo NVIDIA-SMI"}
    for name, script in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return libraries


def test_a_machines_own_folder_is_taken(tmp_path: Path) -> None:
    own = tmp_path / "nvidia"
    assert driver.driver_folder(gpus(own), tmp_path / "driver") == own
    assert not (tmp_path / "driver").exists()


def test_a_folder_is_made_of_the_systems_libraries(machine: Path, tmp_path: Path) -> None:
    made = driver.driver_folder(gpus(None), tmp_path / "driver")
    assert (made / "bin/nvidia-smi").read_text().endswith("echo NVIDIA-SMI\n")
    names = {path.name for path in (made / "lib64").iterdir()}
    assert {"libcuda.so", "libcuda.so.1", f"libcuda.so.{VERSION}", "libnvidia-ml.so.1"} <= names
    assert not {"libc.so.6", "libnvidia-glcore.so.1"} & names, "neither the system's nor what draws"
    assert (made / "lib64/libcuda.so").read_text() == "libcuda", "links work inside of the folder alone"
    assert all(not path.readlink().is_absolute() for path in (made / "lib64").iterdir() if path.is_symlink())


def test_a_driver_of_another_version_is_taken_anew(machine: Path, tmp_path: Path) -> None:
    made = driver.driver_folder(gpus(None), tmp_path / "driver")
    (made / "lib64/kept").touch()
    driver.driver_folder(gpus(None), tmp_path / "driver")
    assert (made / "lib64/kept").exists(), "not made twice"
    for path in list(machine.iterdir()):
        if path.name.endswith(VERSION):
            path.rename(path.with_name(path.name.replace(VERSION, "590.1")))
    (machine / "libcuda.so.1").unlink()
    (machine / "libcuda.so.1").symlink_to("libcuda.so.590.1")
    driver.driver_folder(Gpus(cards(0), "590.1", "13.1", None), tmp_path / "driver")
    names = {path.name for path in (made / "lib64").iterdir()}
    assert "libcuda.so.590.1" in names
    assert not {"kept", f"libcuda.so.{VERSION}"} & names


def test_a_missing_library_is_told_with_what_installs_it(machine: Path, tmp_path: Path) -> None:
    (machine / f"libcuda.so.{VERSION}").unlink()
    with pytest.raises(InputError, match=rf"(?s)libcuda\.so\.{VERSION}.*libnvidia-compute-580.*ldconfig"):
        driver.driver_folder(gpus(None), tmp_path / "driver")


# --- the tool and the running platform ---------------------------------------------------------------


def test_the_plugin_is_built_on_request_and_again_when_its_source_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert DEVICE_PLUGIN in ON_REQUEST
    monkeypatch.setattr("local.tool_build._module_folder", lambda module: tmp_path)
    for name in ("go.mod", "go.sum"):
        (tmp_path / name).touch()
    package = tmp_path / "device-plugin"
    package.mkdir()
    tool = next(tool for tool in TOOLS if tool.name == DEVICE_PLUGIN)
    kubelet = next(tool for tool in TOOLS if tool.name == "kubelet")
    before, other = fingerprint(tool), fingerprint(kubelet)
    (package / "main.go").write_text("package main")
    changed = fingerprint(tool)
    assert changed != before
    (package / "main_test.go").write_text("package main")
    assert fingerprint(tool) == changed, "a test is not built in"
    assert fingerprint(kubelet) == other


def test_what_the_running_platform_hands_out_is_known(
    instance: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(instance, gpus(tmp_path, 0, 1))
    assert platform.hands_out(instance) == set(), "it does not run"
    monkeypatch.setattr(platform, "supervisor", lambda _: object())
    assert platform.hands_out(instance) == {"GPU-0", "GPU-1"}
    written(instance, None)
    assert platform.hands_out(instance) == set()


def test_the_cover_and_the_cgroups_of_another_platform_stay(
    instance: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rmdir of a folder that is covered elsewhere succeeds, and takes the cover off there."""
    hidden = tmp_path / "kubelet"
    hidden.mkdir()
    monkeypatch.setattr(cgroups, "ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(platform, "COVERED", {str(hidden): "kubelet"})
    monkeypatch.setattr(platform, "slot_is_free", lambda slot: slot not in {5, 6})
    group = cgroups.ROOT / "k8s.io" / "of-a-container-that-starts"
    group.mkdir(parents=True)
    platform.clean_leftovers(instance, None)
    assert hidden.exists()
    assert group.exists()
    monkeypatch.setattr(platform, "slot_is_free", lambda slot: slot != 5)
    platform.clean_leftovers(instance, None)
    assert not hidden.exists()
    assert not group.exists()
