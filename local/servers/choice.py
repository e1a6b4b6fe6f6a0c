"""Which model server fits this machine."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from local.gpu import CONTROL_NODES, Finding, Gpus
from local.made_from import MARKER
from modelcar.errors import InputError, refuse

GIB = 2**30

#: What may be asked for: a server by name, or the choice by what the machine has.
KINDS = ("vllm-cuda", "vllm", "transformers", "auto")


@dataclass(frozen=True)
class Release:
    """A server's name and version, and the disk in bytes that installing it takes at most (measured)."""

    title: str
    version: str
    disk: int


RELEASES = {
    "vllm-cuda": Release("vLLM for CUDA", "0.23.0", int(7 * GIB)),
    "vllm": Release("vLLM", "0.23.0", int(5.5 * GIB)),
    "transformers": Release("transformers", "5.23.0", int(4.5 * GIB)),
}

#: Memory that has to be free before vLLM starts: its pod's limit, and some room for the rest.
VLLM_MEMORY = 4 * GIB
#: What a running vLLM holds of that with the tiny model (three processes, measured: 1.9 GiB).
VLLM_HELD = 2 * GIB
#: Memory that has to be free before vLLM starts on a GPU: its processes load CUDA, and the weights pass by.
CUDA_MEMORY = 8 * GIB

#: The first driver that serves CUDA 13, which vLLM 0.23.0's wheel on PyPI is built for.
#: https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/ ("CUDA Toolkit and Corresponding Driver Versions")
CUDA_DRIVER = 580
#: The oldest cards that the wheel has code for: sm_75, 80, 86, 89, 90, 100 and 120, read in its libraries.
CUDA_CAPABILITY = (7, 5)


def choose(
    kind: str,
    free_memory: int,
    free_disk: int,
    *,
    cache: Path | None = None,
    obstacles: Sequence[str] | None = None,
    found: Finding | None = None,
    cuda_obstacles: Sequence[str] | None = None,
) -> tuple[str, str]:
    """Return the server to run and the reason, which is meant to be printed.

    Args:
        kind: `vllm-cuda`, `vllm`, `transformers`, or `auto`: vLLM on the GPU where one is there, else vLLM on
            the CPU, where the machine has what it needs.
        free_memory: available memory, bytes.
        free_disk: free disk where environments are kept, bytes.
        cache: where environments are kept. One that is installed there needs no disk any more, and its
            pod may be running already and hold its share of the memory.
        obstacles: what else keeps vLLM from running on the CPU here; None looks for it.
        found: what was found of GPUs; None where none may be used.
        cuda_obstacles: what else keeps vLLM from running on them; None looks for it.

    Raises:
        InputError: the kind is unknown, or vLLM is asked for where it cannot run.
    """
    if kind not in KINDS:
        raise refuse(
            "MODELCAR_SERVER",
            repr(kind),
            allowed="one of " + ", ".join(KINDS),
            fix="unset it (auto chooses by GPU, memory and disk), or set one of these",
        )
    if kind == "transformers":
        return kind, "MODELCAR_SERVER asks for it"
    if kind == "vllm-cuda" or (kind == "auto" and found and found.gpus):
        lacks = _cuda_lacks(found, cuda_obstacles)
        if kind == "vllm-cuda":
            if lacks:
                raise _refused(kind, lacks, "a machine with an NVIDIA GPU that vLLM's CUDA build runs on")
            return kind, "MODELCAR_SERVER asks for it"
        installed = cache is not None and is_installed("vllm-cuda", cache)
        lacks += _short(
            "vllm-cuda", free_memory, free_disk, installed, CUDA_MEMORY // 2 if installed else CUDA_MEMORY
        )
        if not lacks:
            return "vllm-cuda", f"vLLM {RELEASES['vllm-cuda'].version} on {_cards(found)}"
        on_cpu, reason = choose("auto", free_memory, free_disk, cache=cache, obstacles=obstacles)
        return on_cpu, f"on the CPU, not on the GPU: {'; '.join(lacks)}. {reason}"
    obstacles = vllm_obstacles() if obstacles is None else obstacles
    if kind == "vllm":
        if obstacles:
            raise _refused(kind, obstacles, "a machine that vLLM's CPU build runs on")
        return kind, "MODELCAR_SERVER asks for it"

    release = RELEASES["vllm"]
    installed = cache is not None and is_installed("vllm", cache)
    memory = VLLM_MEMORY - (VLLM_HELD if installed else 0)
    lacks = [*obstacles, *_short("vllm", free_memory, free_disk, installed, memory)]
    if lacks:
        return "transformers", f"not {release.title} {release.version}: " + "; ".join(lacks)
    have = "is installed" if installed else f"fits in {_gib(free_disk)} of free disk"
    return "vllm", f"{release.title} {release.version} {have}, with {_gib(free_memory)} of free memory"


def _refused(kind: str, lacks: Sequence[str], allowed: str) -> InputError:
    others = "transformers" if kind == "vllm" else "vllm (on the CPU)"
    return refuse(
        "MODELCAR_SERVER",
        f"{kind!r}, but " + "; ".join(lacks),
        allowed=allowed,
        fix=f"set MODELCAR_SERVER={others}, or supply what is missing",
    )


def _short(kind: str, free_memory: int, free_disk: int, installed: bool, memory: int) -> list[str]:
    short = []
    if free_memory < memory:
        short.append(f"it wants {_gib(memory)} of free memory and {_gib(free_memory)} is free")
    disk = RELEASES[kind].disk
    if free_disk < disk and not installed:
        short.append(f"it wants {_gib(disk)} of free disk and {_gib(free_disk)} is free")
    return short


def _cards(found: Finding | None) -> str:
    return found.gpus.words() if found and found.gpus else "no card"


def environment_folder(kind: str, cache: Path) -> Path:
    """Return where the environment of a server is kept."""
    return cache / "servers" / f"{kind}-{RELEASES[kind].version}"


def is_installed(kind: str, cache: Path) -> bool:
    """Tell whether an environment was installed to its end (its marker is written last)."""
    return (environment_folder(kind, cache) / MARKER).exists()


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


def _cuda_lacks(found: Finding | None, obstacles: Sequence[str] | None) -> list[str]:
    if found is None or found.gpus is None:
        return [found.found if found else "no GPU may be used here"]
    return cuda_obstacles(found.gpus) if obstacles is None else list(obstacles)


def cuda_obstacles(gpus: Gpus) -> list[str]:
    """Name what keeps vLLM's CUDA build from running on these cards, each with what helps.

    Sources: the wheel's platforms and `Requires-Python`; CUDA_DRIVER and CUDA_CAPABILITY; Triton's
    runtime/build.py, which compiles its launchers with a C compiler and Python's headers at every start.
    """
    found = []
    machine = platform.machine()
    if sys.platform != "linux" or machine not in ("x86_64", "aarch64"):
        found.append(
            f"its CUDA build is for Linux on x86_64 and aarch64, and this is {sys.platform} {machine}"
        )
    if sys.version_info >= (3, 15):
        found.append(f"it needs Python 3.11 to 3.14, and this is {platform.python_version()}")
    major = gpus.driver.partition(".")[0]
    if not major.isdecimal() or int(major) < CUDA_DRIVER:
        serves = f", which serves CUDA up to {gpus.cuda}" if gpus.cuda else ""
        found.append(
            f"it is built for CUDA 13, which needs NVIDIA's driver {CUDA_DRIVER} or newer, and this machine "
            f"has driver {gpus.driver}{serves} (install driver {CUDA_DRIVER} or newer, and reboot)"
        )
    else:
        old = [card for card in gpus.cards if card.capability < CUDA_CAPABILITY]
        fitting = ",".join(str(card.index) for card in gpus.cards if card not in old)
        for card in old:
            has, wanted = (".".join(map(str, pair)) for pair in (card.capability, CUDA_CAPABILITY))
            found.append(
                f"card {card.index} ({card.name}) has compute capability {has}, and it has code for {wanted} "
                "and newer" + (f" (leave the card out: CUDA_VISIBLE_DEVICES={fitting})" if fitting else "")
            )
        nodes = [*(card.node for card in gpus.cards), *CONTROL_NODES]
        absent = [str(node) for node in nodes if not node.exists()]
        if absent:
            found.append(
                f"the device file {' and '.join(absent)} is missing (nvidia-modprobe -u -c 0 makes it, as "
                "does the first program of CUDA after a boot; in a container, start it with the GPU)"
            )
    return [*found, *compiler_obstacles()]


def compiler_obstacles() -> list[str]:
    """Return what is missing to compile a module of Python in C, as Triton does."""
    compiler = c_compiler()
    if compiler is None:
        return ["there is no C compiler, gcc or clang (Debian: apt-get install gcc libc6-dev)"]
    if failed := _cannot_compile(compiler):
        return [
            f"{compiler} cannot compile against Python's headers: {failed} (Debian: apt-get install "
            f"libc6-dev python{sys.version_info.major}.{sys.version_info.minor}-dev)"
        ]
    return []


def c_compiler() -> str | None:
    """Return the compiler that Triton in the pod gets, which sees the same files as this machine.

    Not `cc`: on Debian it is a link into /etc, which the pod does not see.
    """
    found = (shutil.which(name) for name in ("gcc", "clang", os.environ.get("CC") or "gcc"))
    path = next((Path(path) for path in found if path), None)
    return str(path.parent.resolve() / path.name) if path else None  # /bin is /usr/bin, which the pod sees


def _cannot_compile(compiler: str) -> str:
    """Compile what Triton compiles, a module in C, and return why that fails."""
    include = sysconfig.get_paths(scheme="posix_prefix")["include"]
    command = [compiler, "-x", "c", "-", "-shared", "-fPIC", f"-I{include}", "-o", "/dev/null"]
    result = subprocess.run(
        command, input="#include <Python.h>\n", capture_output=True, text=True, timeout=60, check=False
    )
    lines = [line for line in result.stderr.splitlines() if "error" in line.lower()]
    return "" if result.returncode == 0 else (lines or ["it fails"])[0].removeprefix("<stdin>:1:10: ")


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
