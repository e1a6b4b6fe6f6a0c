"""Which NVIDIA cards this machine has, and what serves them.

NVIDIA's own `nvidia-smi` is asked, so nothing here needs a library, and a machine without a card answers
at once. Only the standard library is used: a bare machine runs this too.

Sources: `nvidia-smi --help-query-gpu` and its exit statuses (man nvidia-smi, "RETURN VALUE"); CUDA C
Programming Guide, "CUDA Environment Variables" (CUDA_VISIBLE_DEVICES).
"""

from __future__ import annotations

import contextlib
import csv
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MIB = 2**20

#: Folders that hold a whole driver (bin/, lib64/): of container hosts, and of GKE's nodes.
DRIVER_FOLDERS = (Path("/usr/local/nvidia"), Path("/home/kubernetes/bin/nvidia"))
#: Where nvidia-smi is looked for after PATH, besides `bin` of the folders above.
PROGRAM_FOLDERS = (Path("/usr/bin"), Path("/usr/local/bin"), Path("/opt/bin"))
#: What the kernel knows of cards, with or without a driver.
PCI_DEVICES = Path("/sys/bus/pci/devices")
#: The kernel module's own account of itself.
MODULE_VERSION = Path("/proc/driver/nvidia/version")
#: Seconds that nvidia-smi may take; a card that fell off the bus lets it hang for ever.
PATIENCE = 20.0

#: Device files that every process with a card needs, whichever card it is. The driver makes the second when
#: something of CUDA first runs after a boot.
CONTROL_NODES = (Path("/dev/nvidiactl"), Path("/dev/nvidia-uvm"))

NVIDIA = "0x10de"
DISPLAY_CLASS = "0x03"  # PCI base class: VGA and 3D controllers

FIELDS = (
    "index",
    "name",
    "uuid",
    "memory.total",
    "memory.free",
    "compute_cap",
    "driver_version",
    "mig.mode.current",
    "pci.bus_id",
)


@dataclass(frozen=True)
class Card:
    """One card.

    index: its number as nvidia-smi counts.
    name: as NVIDIA sells it, for example `NVIDIA H100 80GB HBM3`.
    uuid: `GPU-…`, the name that survives a change of the order.
    memory: bytes that it has; 0 where it has none of its own (it shares the machine's).
    free: bytes of that which nobody holds now.
    capability: compute capability, for example (9, 0); (0, 0) where the driver is too old to tell it.
    node: its device file.
    """

    index: int
    name: str
    uuid: str
    memory: int
    free: int
    capability: tuple[int, int]
    node: Path


@dataclass(frozen=True)
class Gpus:
    """The cards that may be used, and what drives them.

    cards: at least one.
    driver: the driver's version, for example `580.159.04`.
    cuda: newest CUDA version that the driver serves, for example `13.0`; empty where it is not told.
    libraries: a folder with bin/ and lib64/ of the driver, as GKE's nodes have one; None where the
        driver's files lie among the system's own.
    """

    cards: tuple[Card, ...]
    driver: str
    cuda: str
    libraries: Path | None

    def words(self) -> str:
        """Describe cards and driver in one line, for people."""
        kinds = {(card.name, card.memory) for card in self.cards}
        shown = ", ".join(
            f"{sum((c.name, c.memory) == kind for c in self.cards)} x {_card_words(*kind)}"
            if len(self.cards) > 1
            else _card_words(*kind)
            for kind in sorted(kinds)
        )
        return f"{shown}, driver {self.driver}" + (f", CUDA {self.cuda}" if self.cuda else "")


def _card_words(name: str, memory: int) -> str:
    return f"{name} ({memory / 2**30:.0f} GiB)" if memory else name


@dataclass(frozen=True)
class Finding:
    """What was found, for people.

    gpus: the cards that may be used, None where there is none.
    found: one line that says what is there, or why nothing of it can be used.
    fix: what the user can do about a card that is there and cannot be used; empty where there is nothing
        to do.
    """

    gpus: Gpus | None
    found: str
    fix: str = ""


class _Unusable(Exception):
    """nvidia-smi does not answer with cards: why, and what helps."""

    def __init__(self, found: str, fix: str) -> None:
        super().__init__(found)
        self.found, self.fix = found, fix


def find(environment: Mapping[str, str] = os.environ) -> Gpus | None:
    """Return the cards that may be used, or None; see `look` for the reasons."""
    return look(environment).gpus


def look(environment: Mapping[str, str] = os.environ) -> Finding:
    """Look for NVIDIA cards, and say in words what was found.

    Args:
        environment: PATH and CUDA_VISIBLE_DEVICES are read from it.

    Nothing is raised: a driver that does not work is a finding.
    """
    program = _program(environment)
    if program is None:
        return _without_program()
    try:
        return _visible(*_ask(program, environment), environment)
    except _Unusable as error:
        return Finding(None, error.found, error.fix)


# --- asking nvidia-smi -----------------------------------------------------------------------------


def _program(environment: Mapping[str, str]) -> Path | None:
    on_path = [Path(folder) for folder in environment.get("PATH", "").split(os.pathsep) if folder]
    folders = [*on_path, *(folder / "bin" for folder in DRIVER_FOLDERS), *PROGRAM_FOLDERS]
    found = (folder / "nvidia-smi" for folder in folders)
    return next((path for path in found if os.access(path, os.X_OK) and path.is_file()), None)


def _ask(program: Path, environment: Mapping[str, str]) -> tuple[list[tuple[Card, bool]], str, str]:
    """Return the cards, each with whether MIG is on, the driver's version, and its CUDA version."""
    variables = {**environment, "LC_ALL": "C"}
    libraries = program.resolve().parent.parent / "lib64"
    if (libraries / "libnvidia-ml.so.1").exists():  # not on the loader's own path, on GKE's nodes
        variables["LD_LIBRARY_PATH"] = f"{libraries}:{environment.get('LD_LIBRARY_PATH', '')}".rstrip(":")
    query = [str(program), f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"]
    text = _said(query, variables)
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()) if row]
    if not rows or "No devices were found" in text:
        raise _no_devices()
    details = _said([str(program), "-q"], variables)
    minors = _minors(details)
    cards, driver = [], ""
    for row in rows:
        if len(row) != len(FIELDS) or not row[0].isdecimal():
            raise _Unusable(
                f"nvidia-smi answers {', '.join(row)!r} for a card",
                "run nvidia-smi: it has to list every card; reset or reboot where one is lost",
            )
        told = dict(zip(FIELDS, row, strict=True))
        driver = told["driver_version"]
        index = int(told["index"])
        minor = minors.get(_bus(told["pci.bus_id"]), index)
        memory, free = (_number(told[field]) * MIB for field in ("memory.total", "memory.free"))
        card = Card(
            index, told["name"], told["uuid"], memory, free, _capability(told["compute_cap"]),
            Path(f"/dev/nvidia{minor}"),
        )  # fmt: skip
        cards.append((card, told["mig.mode.current"].casefold() == "enabled"))
    version = re.search(r"CUDA[^:\n]*Version[^:\n]*:\s*(\d+\.\d+)", details)
    return cards, driver, version[1] if version else ""


def _said(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return what nvidia-smi prints, within a bounded time.

    A process that waits in the driver cannot be killed, so its end is not waited for.
    """
    try:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise _Unusable(
            f"{command[0]} cannot be run: {error.strerror}", "install NVIDIA's driver again"
        ) from error
    try:
        text, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired as error:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        raise _Unusable(
            f"nvidia-smi did not answer within {PATIENCE:.0f} s",
            "the driver hangs: see `dmesg | grep -i nvrm`, and reboot the machine",
        ) from error
    if process.returncode == 0:
        return text
    raise _failure(process.returncode, text)


def _failure(status: int, text: str) -> _Unusable:
    """Put a failed nvidia-smi in words (exit statuses: man nvidia-smi, and NVML's nvmlReturn_t)."""
    if "No devices were found" in text or status == 6:
        return _no_devices()
    line = next((line.strip() for line in text.splitlines() if line.strip()), "it says nothing")
    if "version mismatch" in text:
        fix = "the driver was updated since the machine started: reboot it"
    elif "not a valid field" in text:
        return _Unusable(
            f"the driver{_module_version()} is too old: {line}",
            "install NVIDIA's driver 580 or newer (CUDA 13), and reboot",
        )
    elif "communicate with the NVIDIA driver" in text or status == 9:
        fix = "load the driver (modprobe nvidia), or install it for the running kernel, and reboot"
    else:
        fix = "run nvidia-smi until it lists the card: docs/troubleshooting.md"
    return _Unusable(f"nvidia-smi failed with status {status}: {line}", fix)


def _module_version() -> str:
    with contextlib.suppress(OSError):
        if match := re.search(r" (\d+\.[\d.]+) ", MODULE_VERSION.read_text()):
            return f" {match[1]}"
    return ""


def _no_devices() -> _Unusable:
    cards = _pci_cards()
    if cards:
        return _Unusable(
            f"the driver does not take the card {', '.join(cards)} (nvidia-smi: no devices were found)",
            "see `dmesg | grep -i nvrm` for the driver's reason: a newer card needs a newer driver, most "
            "need its open kernel modules, and a lost card needs a reboot",
        )
    return _Unusable(
        "NVIDIA's driver is installed, and the machine has no card for it",
        "nothing to do, unless a card was to be there: then attach it to this machine (a cloud VM: choose a "
        "machine type with a GPU)",
    )


def _without_program() -> Finding:
    cards = _pci_cards()
    if MODULE_VERSION.exists():
        return Finding(
            None,
            "NVIDIA's kernel module is loaded, and nvidia-smi is not on PATH",
            "install the driver's programs of the same version (Debian and Ubuntu: nvidia-utils-VERSION), or "
            "put their folder on PATH",
        )
    if cards:
        return Finding(
            None,
            f"the card {', '.join(cards)} has no driver",
            "install NVIDIA's driver 580 or newer (CUDA 13): docs/local-stack.md, section 'A GPU'",
        )
    return Finding(None, "no NVIDIA card")


def _pci_cards() -> list[str]:
    """Return the addresses of NVIDIA's cards as the kernel sees them, with their PCI IDs."""
    found = []
    for device in sorted(PCI_DEVICES.glob("*")):
        try:
            vendor, kind, name = (
                (device / file).read_text().strip() for file in ("vendor", "class", "device")
            )
        except OSError:
            continue
        if vendor == NVIDIA and kind.startswith(DISPLAY_CLASS):
            found.append(f"{vendor.removeprefix('0x')}:{name.removeprefix('0x')} at {device.name}")
    return found


def _minors(details: str) -> dict[str, int]:
    """Return the number of each card's device file by its bus address, from `nvidia-smi -q`.

    It is the same as the index on most machines, but not on one whose cards were attached out of order.
    """
    found, bus = {}, ""
    for line in details.splitlines():
        if match := re.match(r"GPU ([0-9A-Fa-f]+:[0-9A-Fa-f:.]+)\s*$", line):
            bus = _bus(match[1])
        elif (match := re.match(r"\s+Minor Number\s*:\s*(\d+)", line)) and bus:
            found[bus] = int(match[1])
    return found


def _bus(address: str) -> str:
    """Return a PCI address without what its writers differ in (00000000:00:06.0, 0000:00:06.0)."""
    domain, _, rest = address.strip().lower().partition(":")
    return f"{domain.lstrip('0')}:{rest}"


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0  # [N/A] of a card without memory of its own


def _capability(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


# --- what may be used ------------------------------------------------------------------------------


def _visible(
    cards: list[tuple[Card, bool]], driver: str, cuda: str, environment: Mapping[str, str]
) -> Finding:
    all_words = _gpus([card for card, _ in cards], driver, cuda).words()
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        by_uuid = {card.uuid: (card, mig) for card, mig in cards}
        visible = [by_uuid[card.uuid] for card in chosen_cards(chosen, [card for card, _ in cards])]
        if not visible:
            return Finding(
                None,
                f"{all_words}; CUDA_VISIBLE_DEVICES={chosen!r} hides "
                + ("it" if len(cards) == 1 else "all of them"),
                "unset CUDA_VISIBLE_DEVICES, or name cards that are there: "
                + ", ".join(f"{card.index} ({card.uuid})" for card, _ in cards),
            )
        cards = visible
    whole = [card for card, mig in cards if not mig]
    split = [card for card, mig in cards if mig]
    fix = "switch it off to use the card here: nvidia-smi -i " + ",".join(str(c.index) for c in split)
    fix = fix + " -mig 0" if split else ""
    if not whole:
        return Finding(None, f"{all_words}; MIG mode is on, which is not supported here", fix)
    gpus = _gpus(whole, driver, cuda)
    if split:
        names = ", ".join(str(card.index) for card in split)
        return Finding(gpus, f"{gpus.words()}; not card {names}: MIG mode is on", fix)
    return Finding(gpus, gpus.words())


def chosen_cards(value: str, cards: Sequence[Card]) -> list[Card]:
    """Return the cards that a value of CUDA_VISIBLE_DEVICES leaves, in its order.

    As CUDA reads it: indexes, or UUIDs as far as they are unique; what follows an entry that names no
    card is not seen. Indexes count as nvidia-smi does (CUDA_DEVICE_ORDER=PCI_BUS_ID).
    """
    found: list[Card] = []
    for entry in (part.strip() for part in value.split(",")):
        if entry.isdecimal():
            matching = [card for card in cards if card.index == int(entry)]
        else:
            matching = [card for card in cards if entry.startswith("GPU-") and card.uuid.startswith(entry)]
        if len(matching) != 1:
            break
        if matching[0] not in found:
            found.append(matching[0])
    return found


def _gpus(cards: Sequence[Card], driver: str, cuda: str) -> Gpus:
    libraries = (folder for folder in DRIVER_FOLDERS if (folder / "lib64" / "libcuda.so.1").exists())
    return Gpus(tuple(cards), driver, cuda, next(libraries, None))
