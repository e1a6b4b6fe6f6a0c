"""A machine's GPUs as a test says: a stand-in for nvidia-smi, and the kernel's account of PCI cards."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from local import gpu

H100 = "NVIDIA H100 80GB HBM3"


@dataclass
class Machine:
    """What `nvidia-smi` prints, and where.

    smi: folder of the program, the one entry of PATH.
    environment: what `gpu.look` reads.
    """

    smi: Path
    pci: Path
    environment: dict[str, str] = field(default_factory=dict)

    def cards(self, *rows: str, driver: str = "580.159.04", cuda: str = "13.0", minors: str = "0123") -> None:
        """Let it list cards: `NAME, memory MiB, free MiB, capability, MIG mode`."""
        lines, details = [], [f"Driver Version : {driver}", f"CUDA Version                : {cuda}", ""]
        for index, row in enumerate(rows):
            name, total, free, capability, mig = (cell.strip() for cell in row.split(","))
            bus, uuid = f"00000000:{index:02X}:06.0", f"GPU-{'abcd'[index]}0000000"
            lines.append(", ".join((str(index), name, uuid, total, free, capability, driver, mig, bus)))
            details += [f"GPU {bus}", f"    Product Name            : {name}"]
            details += [f"    Minor Number            : {minors[index]}"]
        self.says("\n".join(lines), details="\n".join(details))

    def says(self, text: str, status: int = 0, *, details: str = "", before: str = "") -> None:
        """Let nvidia-smi print a text and end with a status; `details` is what it prints for -q."""
        program = self.smi / "nvidia-smi"
        program.write_text(
            f'#!/bin/sh\n{before}\n[ "$1" = -q ] && {{ echo {shlex.quote(details)}; exit 0; }}\n'
            f"echo {shlex.quote(text)}\nexit {status}\n"
        )
        program.chmod(0o755)

    def plug(self, address: str = "0000:00:06.0", device: str = "0x2330") -> None:
        """Let the kernel see a card."""
        folder = self.pci / address
        folder.mkdir(parents=True)
        for name, value in (("vendor", "0x10de"), ("class", "0x030200"), ("device", device)):
            (folder / name).write_text(value + "\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a machine without a card, whose own folders are not looked at."""
    (tmp_path / "smi").mkdir()
    monkeypatch.setattr(gpu, "DRIVER_FOLDERS", ())
    monkeypatch.setattr(gpu, "PROGRAM_FOLDERS", ())
    monkeypatch.setattr(gpu, "PCI_DEVICES", tmp_path / "pci")
    monkeypatch.setattr(gpu, "MODULE_VERSION", tmp_path / "version")
    return Machine(tmp_path / "smi", tmp_path / "pci", {"PATH": f"{tmp_path / 'smi'}:/usr/bin:/bin"})
