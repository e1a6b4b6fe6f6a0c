"""Which model server `make up` runs, and what it says about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from local import servers
from local.gpu import Card, Finding, Gpus
from local.made_from import MARKER
from local.servers import choice
from modelcar.errors import InputError

GIB = 2**30
MUCH = 100 * GIB


def test_auto_takes_vllm_where_the_machine_has_room() -> None:
    kind, reason = servers.choose("auto", MUCH, MUCH, obstacles=())
    assert kind == "vllm"
    assert "vLLM 0.23.0" in reason


@pytest.mark.parametrize(
    ("memory", "disk", "said"),
    [
        (2 * GIB, MUCH, "4.0 GiB of free memory and 2.0 GiB is free"),
        (MUCH, 1 * GIB, "5.5 GiB of free disk and 1.0 GiB is free"),
    ],
)
def test_auto_falls_back_and_says_what_is_short(memory: int, disk: int, said: str) -> None:
    kind, reason = servers.choose("auto", memory, disk, obstacles=())
    assert kind == "transformers"
    assert said in reason


def test_auto_names_every_reason() -> None:
    _, reason = servers.choose("auto", 0, 0, obstacles=("no libnuma",))
    assert all(part in reason for part in ("no libnuma", "memory", "disk"))


def test_an_installed_vllm_stays_chosen_while_it_runs(tmp_path: Path) -> None:
    """Else the second `make up` would change the service, because the first one's pod holds memory."""
    folder = choice.environment_folder("vllm", tmp_path)
    folder.mkdir(parents=True)
    (folder / MARKER).touch()
    assert servers.choose("auto", 3 * GIB, 0, cache=tmp_path, obstacles=())[0] == "vllm"
    assert servers.choose("auto", 1 * GIB, 0, cache=tmp_path, obstacles=())[0] == "transformers"


@pytest.mark.parametrize("kind", ["vllm", "transformers"])
def test_a_named_server_is_taken_even_where_auto_would_not(kind: str) -> None:
    assert servers.choose(kind, 0, 0, obstacles=()) == (kind, "MODELCAR_SERVER asks for it")


def test_vllm_is_refused_where_it_cannot_run() -> None:
    with pytest.raises(InputError, match="libnuma") as caught:
        servers.choose("vllm", MUCH, MUCH, obstacles=("libnuma.so.1 is missing",))
    assert "MODELCAR_SERVER=transformers" in caught.value.problems[0].fix


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="MODELCAR_SERVER: 'vlm'") as caught:
        servers.choose("vlm", MUCH, MUCH)
    assert caught.value.problems[0].allowed == "one of vllm-cuda, vllm, transformers, auto"


def test_obstacles_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    monkeypatch.setattr("shutil.which", lambda name: None)
    kind, reason = servers.choose("auto", MUCH, MUCH)
    assert kind == "transformers"
    assert "riscv64" in reason
    assert "lscpu" in reason


# --- on a GPU ---------------------------------------------------------------------------------------


def cards(
    *capabilities: tuple[int, int], driver: str = "580.65.06", node: Path = Path("/dev/null")
) -> Finding:
    """Return what was found of cards whose device file is there."""
    found = [
        Card(index, "NVIDIA Card", f"GPU-{index}", 80 * GIB, 80 * GIB, capability, node)
        for index, capability in enumerate(capabilities)
    ]
    gpus = Gpus(tuple(found), driver, "13.0" if driver > "580" else "12.8", None)
    return Finding(gpus, gpus.words())


def test_auto_takes_the_gpu_where_one_fits() -> None:
    kind, reason = servers.choose("auto", MUCH, MUCH, obstacles=(), found=cards((9, 0)), cuda_obstacles=())
    assert kind == "vllm-cuda"
    assert reason == "vLLM 0.23.0 on NVIDIA Card (80 GiB), driver 580.65.06, CUDA 13.0"


def test_without_a_card_auto_is_what_it_was() -> None:
    without = servers.choose("auto", MUCH, MUCH, obstacles=())
    assert servers.choose("auto", MUCH, MUCH, obstacles=(), found=Finding(None, "no NVIDIA card")) == without


@pytest.mark.parametrize("kind", ["vllm", "transformers"])
def test_the_cpu_can_be_asked_for_beside_a_gpu(kind: str) -> None:
    assert servers.choose(kind, MUCH, MUCH, obstacles=(), found=cards((9, 0)))[0] == kind


@pytest.mark.parametrize(
    ("memory", "disk", "said"),
    [
        (6 * GIB, MUCH, "8.0 GiB of free memory and 6.0 GiB is free"),
        (MUCH, 6 * GIB, "7.0 GiB of free disk and 6.0 GiB is free"),
    ],
)
def test_a_gpu_in_a_small_machine_is_left_with_the_reason(memory: int, disk: int, said: str) -> None:
    kind, reason = servers.choose("auto", memory, disk, obstacles=(), found=cards((9, 0)), cuda_obstacles=())
    assert kind == "vllm"
    assert reason.startswith("on the CPU, not on the GPU: ")
    assert said in reason


def test_the_cuda_build_is_refused_without_a_card_in_the_words_of_what_was_found() -> None:
    with pytest.raises(InputError, match="'vllm-cuda', but the card 10de:2330 has no driver") as caught:
        servers.choose("vllm-cuda", MUCH, MUCH, found=Finding(None, "the card 10de:2330 has no driver"))
    assert "MODELCAR_SERVER=vllm (on the CPU)" in caught.value.problems[0].fix


@pytest.fixture(autouse=True)
def control_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The device files that all cards share, as they are there after the first program of CUDA."""
    nodes = (tmp_path / "nvidiactl", tmp_path / "nvidia-uvm")
    for node in nodes:
        node.touch()
    monkeypatch.setattr(choice, "CONTROL_NODES", nodes)
    return nodes


def found_obstacles(finding: Finding) -> str:
    assert finding.gpus
    return "; ".join(choice.cuda_obstacles(finding.gpus))


def test_a_fitting_card_has_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "compiler_obstacles", list)  # not every machine that runs the tests has one
    assert found_obstacles(cards((7, 5), (9, 0), (12, 0))) == ""


@pytest.mark.parametrize("driver", ["575.57.08", "535.183.01", "nonsense"])
def test_a_driver_from_before_cuda_13_is_told_with_the_versions(driver: str) -> None:
    said = found_obstacles(cards((9, 0), driver=driver))
    assert "CUDA 13, which needs NVIDIA's driver 580 or newer" in said
    assert f"this machine has driver {driver}" in said
    assert "install driver 580 or newer, and reboot" in said


def test_an_old_card_is_told_and_how_to_leave_it_out() -> None:
    said = found_obstacles(cards((9, 0), (6, 1)))
    assert "card 1 (NVIDIA Card) has compute capability 6.1, and it has code for 7.5 and newer" in said
    assert "CUDA_VISIBLE_DEVICES=0" in said
    assert "CUDA_VISIBLE_DEVICES" not in found_obstacles(cards((7, 0)))


def test_a_missing_device_file_is_told(tmp_path: Path) -> None:
    said = found_obstacles(cards((9, 0), node=tmp_path / "nvidia0"))
    assert f"the device file {tmp_path}/nvidia0 is missing (nvidia-modprobe -u -c 0" in said


def test_a_machine_where_nothing_of_cuda_has_run_since_its_boot_is_told(
    control_nodes: tuple[Path, Path],
) -> None:
    control_nodes[1].unlink()
    said = found_obstacles(cards((9, 0)))
    assert f"the device file {control_nodes[1]} is missing (nvidia-modprobe -u -c 0 makes it" in said


def test_a_machine_without_a_c_compiler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert "no C compiler, gcc or clang (Debian: apt-get install gcc" in found_obstacles(cards((9, 0)))


def test_a_machine_without_pythons_headers_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if choice.c_compiler() is None:
        pytest.skip("no C compiler on this machine")
    monkeypatch.setattr("sysconfig.get_paths", lambda scheme: {"include": str(tmp_path)})
    said = found_obstacles(cards((9, 0)))
    assert "cannot compile against Python's headers: fatal error: Python.h" in said
    assert "-dev)" in said
