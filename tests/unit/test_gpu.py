"""Which cards are found, and what is said where one cannot be used."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from local import gpu
from tests.unit.nvidia_machine import H100, Machine, machine

__all__ = ["machine"]

#: As an H100 answers (driver 580.159.04).
WHOLE = f"{H100}, 81559, 81079, 9.0, Disabled"
CONSUMER = "NVIDIA GeForce RTX 4090, 24564, 20000, 8.9, [N/A]"


def test_a_machine_without_a_card_has_nothing_to_mend(machine: Machine) -> None:
    assert gpu.look(machine.environment) == gpu.Finding(None, "no NVIDIA card")
    assert gpu.find(machine.environment) is None


def test_a_card_is_described(machine: Machine) -> None:
    machine.cards(WHOLE)
    found = gpu.look(machine.environment)
    assert found.found == f"{H100} (80 GiB), driver 580.159.04, CUDA 13.0"
    assert not found.fix
    assert found.gpus
    [card] = found.gpus.cards
    assert card == gpu.Card(
        0, H100, "GPU-a0000000", 81559 * 2**20, 81079 * 2**20, (9, 0), Path("/dev/nvidia0")
    )
    assert found.gpus.libraries is None


def test_the_device_file_goes_by_the_minor_number_and_not_by_the_index(machine: Machine) -> None:
    machine.cards(WHOLE, WHOLE, minors="10")
    found = gpu.find(machine.environment)
    assert found
    assert [card.node.name for card in found.cards] == ["nvidia1", "nvidia0"]


def test_a_card_that_shares_the_machines_memory_tells_none(machine: Machine) -> None:
    machine.cards("NVIDIA GB10, [N/A], [N/A], 12.1, [N/A]")
    found = gpu.find(machine.environment)
    assert found
    assert found.cards[0].memory == 0
    assert found.words() == "NVIDIA GB10, driver 580.159.04, CUDA 13.0"


@pytest.mark.parametrize(
    ("value", "indexes"),
    [
        ("1", [1]),
        ("1,0", [1, 0]),
        (" 0 , 1", [0, 1]),
        ("GPU-b0000000", [1]),
        ("GPU-b", [1]),
        ("0,7,1", [0]),  # CUDA sees nothing behind an entry that names no card
        ("0,0", [0]),
        ("", None),
        ("-1", None),
        ("7", None),
        ("GPU-", None),  # not unique
        ("none", None),
    ],
)
def test_cuda_visible_devices_chooses(machine: Machine, value: str, indexes: list[int] | None) -> None:
    machine.cards(WHOLE, CONSUMER)
    found = gpu.look({**machine.environment, "CUDA_VISIBLE_DEVICES": value})
    if indexes is None:
        assert found.gpus is None
        assert f"CUDA_VISIBLE_DEVICES={value!r} hides all of them" in found.found
        assert "unset CUDA_VISIBLE_DEVICES" in found.fix
        assert "1 (GPU-b0000000)" in found.fix
    else:
        assert found.gpus
        assert [card.index for card in found.gpus.cards] == indexes
        assert not found.fix


def test_mig_mode_is_not_supported(machine: Machine) -> None:
    machine.cards(WHOLE.replace("Disabled", "Enabled"))
    found = gpu.look(machine.environment)
    assert found.gpus is None
    assert "MIG mode is on, which is not supported here" in found.found
    assert found.fix.endswith("nvidia-smi -i 0 -mig 0")


def test_a_card_in_mig_mode_leaves_the_others(machine: Machine) -> None:
    machine.cards(WHOLE.replace("Disabled", "Enabled"), WHOLE)
    found = gpu.look(machine.environment)
    assert found.gpus
    assert [card.index for card in found.gpus.cards] == [1]
    assert "not card 0: MIG mode is on" in found.found
    assert found.fix


@pytest.mark.parametrize(
    ("text", "status", "found", "fix"),
    [
        ("No devices were found", 6, "the machine has no card for it", "attach it to this machine"),
        ("No devices were found", 0, "the machine has no card for it", "attach it to this machine"),
        ("", 0, "the machine has no card for it", "attach it to this machine"),
        (
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
            9,
            "status 9: NVIDIA-SMI has failed",
            "modprobe nvidia",
        ),
        (
            "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.159",
            18,
            "version mismatch",
            "reboot",
        ),
        (
            'Field "compute_cap" is not a valid field to query.',
            2,
            "the driver is too old",
            "driver 580 or newer",
        ),
        (
            "Unable to determine the device handle for GPU0000:00:06.0: GPU is lost.  Reboot the system",
            15,
            "GPU is lost",
            "until it lists the card",
        ),
        ("[GPU is lost], x", 0, "answers '[GPU is lost], x' for a card", "reset or reboot"),
        ("", 1, "status 1: it says nothing", "docs/troubleshooting.md"),
    ],
)
def test_a_driver_that_lists_no_card_is_told_with_the_fix(
    machine: Machine, text: str, status: int, found: str, fix: str
) -> None:
    machine.says(text, status)
    looked = gpu.look(machine.environment)
    assert looked.gpus is None
    assert found in looked.found
    assert fix in looked.fix


def test_a_driver_from_before_the_questions_tells_its_version(machine: Machine) -> None:
    gpu.MODULE_VERSION.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.256.02  Thu May 2024\n"
    )
    machine.says('Field "compute_cap" is not a valid field to query.', 2)
    assert gpu.look(machine.environment).found.startswith("the driver 470.256.02 is too old: ")


def test_a_card_that_the_driver_does_not_take(machine: Machine) -> None:
    machine.says("No devices were found", 6)
    machine.plug()
    found = gpu.look(machine.environment)
    assert "the driver does not take the card 10de:2330 at 0000:00:06.0" in found.found
    assert "dmesg" in found.fix


def test_a_card_without_a_driver(machine: Machine) -> None:
    machine.plug()
    machine.plug("0000:00:1f.3", "0x10f0")
    (machine.pci / "0000:00:1f.3" / "class").write_text("0x040300\n")  # the card's own sound device
    found = gpu.look(machine.environment)
    assert found.gpus is None
    assert found.found == "the card 10de:2330 at 0000:00:06.0 has no driver"
    assert "driver 580 or newer" in found.fix


def test_a_driver_without_its_programs(machine: Machine) -> None:
    gpu.MODULE_VERSION.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04\n")
    found = gpu.look(machine.environment)
    assert "nvidia-smi is not on PATH" in found.found
    assert "nvidia-utils" in found.fix


def test_a_driver_that_hangs_is_not_waited_for(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.says("", before="sleep 60")
    monkeypatch.setattr(gpu, "PATIENCE", 0.2)
    started = time.monotonic()
    found = gpu.look(machine.environment)
    assert time.monotonic() - started < 10
    assert "did not answer" in found.found
    assert "reboot" in found.fix


def test_a_program_that_cannot_be_run_is_told(machine: Machine) -> None:
    (machine.smi / "nvidia-smi").write_text("#!/no/such/shell\n")
    (machine.smi / "nvidia-smi").chmod(0o755)
    found = gpu.look(machine.environment)
    assert found.gpus is None
    assert "cannot be run" in found.found


def test_a_driver_in_a_folder_of_its_own_is_found_and_given_its_libraries(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on GKE's nodes: /home/kubernetes/bin/nvidia is on no path of the system's."""
    driver = tmp_path / "nvidia"
    for library in ("libcuda.so.1", "libnvidia-ml.so.1"):
        (driver / "lib64").mkdir(parents=True, exist_ok=True)
        (driver / "lib64" / library).touch()
    (driver / "bin").mkdir()
    machine.smi = driver / "bin"
    machine.cards(WHOLE)
    program = driver / "bin/nvidia-smi"
    needed = f'#!/bin/sh\n[ "$LD_LIBRARY_PATH" = "{driver}/lib64" ] || exit 12\n'
    program.write_text(program.read_text().replace("#!/bin/sh\n", needed, 1))
    monkeypatch.setattr(gpu, "DRIVER_FOLDERS", (driver,))
    found = gpu.find({"PATH": ""})
    assert found
    assert found.libraries == driver
