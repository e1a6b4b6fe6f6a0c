"""Which model server fits this machine."""

from __future__ import annotations

import ctypes
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelcar.errors import refuse

GIB = 2**30

#: What may be asked for: a server by name, or the choice by what the machine has.
KINDS = ("vllm", "transformers", "auto")


@dataclass(frozen=True)
class Release:
    """A server's name and version, and the disk in bytes that installing it takes at most (measured)."""

    title: str
    version: str
    disk: int


RELEASES = {
    "vllm": Release("vLLM", "0.23.0", int(5.5 * GIB)),
    "transformers": Release("transformers", "5.23.0", int(4.5 * GIB)),
}

#: Memory that has to be free before vLLM starts: its pod's limit, and some room for the rest.
VLLM_MEMORY = 4 * GIB
#: What a running vLLM holds of that with the tiny model (three processes, measured: 1.9 GiB).
VLLM_HELD = 2 * GIB


def choose(
    kind: str,
    free_memory: int,
    free_disk: int,
    *,
    cache: Path | None = None,
    obstacles: Sequence[str] | None = None,
) -> tuple[str, str]:
    """Return the server to run and the reason, which is meant to be printed.

    Args:
        kind: `vllm`, `transformers` or `auto`: vLLM where the machine has what it needs.
        free_memory: available memory, bytes.
        free_disk: free disk where environments are kept, bytes.
        cache: where environments are kept. One that is installed there needs no disk any more, and its
            pod may be running already and hold its share of the memory.
        obstacles: what else keeps vLLM from running here; None looks for it.

    Raises:
        InputError: the kind is unknown, or vLLM is asked for where it cannot run.
    """
    if kind not in KINDS:
        raise refuse(
            "MODELCAR_SERVER",
            repr(kind),
            allowed="one of " + ", ".join(KINDS),
            fix="unset it (auto chooses by memory and disk), or set one of these",
        )
    if kind == "transformers":
        return kind, "MODELCAR_SERVER asks for it"
    obstacles = vllm_obstacles() if obstacles is None else obstacles
    if kind == "vllm":
        if obstacles:
            raise refuse(
                "MODELCAR_SERVER",
                "'vllm', but " + "; ".join(obstacles),
                allowed="a machine that vLLM's CPU build runs on",
                fix="set MODELCAR_SERVER=transformers, or supply what is missing",
            )
        return kind, "MODELCAR_SERVER asks for it"

    release = RELEASES["vllm"]
    installed = cache is not None and is_installed("vllm", cache)
    memory = VLLM_MEMORY - (VLLM_HELD if installed else 0)
    lacks = list(obstacles)
    if free_memory < memory:
        lacks.append(f"it wants {_gib(memory)} of free memory and {_gib(free_memory)} is free")
    if free_disk < release.disk and not installed:
        lacks.append(f"it wants {_gib(release.disk)} of free disk and {_gib(free_disk)} is free")
    if lacks:
        return "transformers", f"not {release.title} {release.version}: " + "; ".join(lacks)
    have = "is installed" if installed else f"fits in {_gib(free_disk)} of free disk"
    return "vllm", f"{release.title} {release.version} {have}, with {_gib(free_memory)} of free memory"


def environment_folder(kind: str, cache: Path) -> Path:
    """Return where the environment of a server is kept."""
    return cache / "servers" / f"{kind}-{RELEASES[kind].version}"


def is_installed(kind: str, cache: Path) -> bool:
    """Tell whether an environment was installed to its end (its marker is written last)."""
    return (environment_folder(kind, cache) / MARKER).exists()


#: Written as the last act of an installation: without it the folder is what an interrupted one left.
MARKER = "installed.json"


def vllm_obstacles() -> list[str]:
    """Name what keeps vLLM's CPU build from running here, whatever the memory and disk.

    Sources: the platforms of the wheel, its `Requires-Python`, the libraries its extension names, and
    vllm/utils/cpu_resource_utils.py, which runs `lscpu`.
    """
    found = []
    machine = platform.machine()
    if sys.platform != "linux" or machine not in ("x86_64", "aarch64"):
        found.append(
            f"its CPU build is for Linux on x86_64 and aarch64, and this is {sys.platform} {machine}"
        )
    elif machine == "x86_64" and "avx2" not in _cpu_flags():
        found.append("its CPU build needs a processor with AVX2")
    if sys.version_info >= (3, 15):
        found.append(f"it needs Python 3.11 to 3.14, and this is {platform.python_version()}")
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError:
        found.append("the library libnuma.so.1 is missing (Debian: apt-get install libnuma1)")
    if not shutil.which("lscpu"):
        found.append("the program lscpu is missing (Debian: apt-get install util-linux)")
    return found


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
