"""What goes into a bundle: programs and manifests as they lie in the cache, and Python packages."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from local import debian, netfilter, tool_list, tools
from local.bundle import libraries
from local.bundle.archives import Entry, entries
from local.bundle.packages import Pinned
from local.processor import ARCHITECTURES
from local.tool_list import Progress
from modelcar.base import pinned_program, read_base
from modelcar.errors import refuse
from modelcar.progress import working

#: Where a Debian part is found again (local/debian.py), where that is not usr/bin.
PLACES = {"bridge": Path("lib/cni/bridge")}


def programs(staging: Path, progress: Progress, extra: tuple[str, ...] = ()) -> tuple[list[Entry], str]:
    """Return the platform's tools as they lie in the cache, and the oldest glibc that they run with.

    Args:
        staging: folder for copies, made anew.
        progress: takes a line for each thing that takes time.
        extra: names out of tools.ON_REQUEST.

    Raises:
        InputError: a tool cannot be downloaded or built, or a package cannot be had.
    """
    built = tools.build_all(progress, extra)
    kserve = tools.kserve_manifests(progress)
    unpacked = debian.debian_parts(tool_list.tools_folder() / "debian", progress)
    shutil.rmtree(staging, ignore_errors=True)
    root = staging / "debian" / "usr"
    pairs = [(path, PLACES.get(name, Path("bin") / name)) for name, path in unpacked.items()]
    pairs = [pair for pair in pairs if pair[1].name != "busybox"]
    # The one that every image's base layer is made of, which is downloaded otherwise (modelcar/base.py).
    busybox = staging / "debian" / "bin" / "busybox"
    busybox.parent.mkdir(parents=True)
    busybox.write_bytes(pinned_program(read_base(ARCHITECTURES[platform.machine()])))
    busybox.chmod(0o755)
    # What the runtime calls lies beside the one that Kubernetes is told of.
    plugins = sorted(path for path in unpacked["bridge"].parent.iterdir() if path.is_file())
    pairs += [(path, Path("lib/cni") / path.name) for path in plugins if path.name != "bridge"]
    patchelf = libraries.patchelf(staging.parent / "patchelf")
    libraries.bring(pairs, root, patchelf)
    filters = _netfilter(staging / "netfilter" / "debian", staging.parent / "netfilter")
    found = [
        *tool_entries(built),
        *entries(kserve, f"{kserve.name}/"),
        *entries(staging / "debian", "debian/"),
        *entries(filters, "netfilter/debian/"),
    ]
    elf = [path for folder in (root, filters) for path in folder.rglob("*") if path.is_file()]
    elf += [built[name] for name in tools.downloads(built)]  # a maker's build may be linked to glibc
    major, minor = libraries.oldest_glibc(elf)
    return found, f"{major}.{minor}"


def tool_entries(built: Mapping[str, Path]) -> list[Entry]:
    """Return programs as they lie in the cache, and the stamps of those that were downloaded.

    Args:
        built: the programs by name.
    """
    stamps = tools.downloads(built)
    pairs = [*((path, True) for path in built.values()), *((path, False) for path in stamps.values())]
    root = tool_list.tools_folder()
    return [Entry(str(path.relative_to(root)), path, executable=runs) for path, runs in pairs]


def _netfilter(target: Path, packages: Path) -> Path:
    """Lay out iptables and ipset as local/netfilter.py finds them, with every library that they load.

    They are Debian's own here, whatever this machine has: their plug-ins have to be of the same version.
    """
    if not (packages / "done").exists():
        shutil.rmtree(packages, ignore_errors=True)
        debian.unpack_debian(netfilter.PACKAGES, packages)
        (packages / "done").touch()
    folder = next((packages / "usr/lib").glob("*-linux-gnu"))
    kept = target / folder.relative_to(packages)
    shutil.copytree(packages / "usr/sbin", target / "usr/sbin", symlinks=True)
    shutil.copytree(folder, kept, symlinks=True)
    loaded = [path for path in (*target.glob("usr/sbin/*"), *kept.rglob("*.so*")) if not path.is_symlink()]
    for path in loaded:
        for name, library in libraries.needed(path, [kept]).items():
            if not (kept / name).exists():
                shutil.copyfile(library.resolve(), kept / name)
    return target


def packages(
    pinned: Sequence[Pinned], cache: Path, python: str, system: str, uv: Path, progress: Progress
) -> Path:
    """Install packages of a lock for another platform and Python, and return the folder.

    Args:
        pinned: with their hashes, which are checked.
        cache: folder that they are kept in, for the next time.
        python: MAJOR.MINOR.
        system: as uv names them, for example x86_64-manylinux_2_34.
        uv: the program.
        progress: takes a line.

    Raises:
        InputError: they cannot be had for that platform, or at all.
    """
    text = "\n".join(pin.text for pin in pinned) + "\n"
    folder = cache / hashlib.sha256(f"{python} {system}\n{text}".encode()).hexdigest()[:32]
    done = folder.with_name(f"{folder.name}.done")
    if done.exists() and folder.exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f"{folder.name}.lock")
    lock.write_text(text)
    progress(f"fetching {len(pinned)} packages for Python {python} on {system} …")
    command = [str(uv), "pip", "install", "--target", str(folder), "--python", sys.executable]
    command += ["--python-version", python, "--python-platform", system, "--only-binary", ":all:"]
    command += ["--no-deps", "--require-hashes", "--requirement", str(lock)]
    with working("   fetching packages"):
        result = subprocess.run(
            command,
            cwd="/",
            env={**os.environ, "UV_NO_CONFIG": "1"},
            umask=0o022,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    if result.returncode:
        tail = "\n".join((result.stderr or result.stdout).strip().splitlines()[-15:])
        raise refuse(
            f"packages for Python {python} on {system}",
            f"exit status {result.returncode}\n{tail}",
            allowed="packages that the lock names, as wheels for that platform",
            fix="check that a Python package index is reachable; or name a platform that the packages "
            'support: make bundle ARGS="--python 3.12 --platform x86_64-manylinux_2_35"',
        )
    done.touch()
    return folder


def site_packages(folder: Path, python: str) -> list[Entry]:
    """Return installed packages as they lie in an environment.

    Of what they put on PATH, programs are kept and scripts are not: those name the Python that made them.
    Static libraries are for linkers only (XGrammar's alone is 50 MB of a bundle).
    """
    inside = f"lib/python{python}/site-packages/"
    found = []
    for entry in entries(folder):
        if entry.name.endswith(".a"):
            continue
        if not entry.name.startswith("bin/"):
            found.append(Entry(inside + entry.name, entry.path, entry.executable, entry.link))
        elif entry.path.read_bytes()[:4] == b"\x7fELF":
            found.append(Entry(entry.name, entry.path, executable=True))
    return [entry for entry in found if not entry.name.startswith(f"{inside}.")]


def glibc_of(system: str) -> str:
    """Return the glibc that a platform's wheels need at most (PEP 600), or nothing where it names none."""
    match = re.search(r"manylinux_(\d+)_(\d+)$", system)
    return f"{match[1]}.{match[2]}" if match else ""
