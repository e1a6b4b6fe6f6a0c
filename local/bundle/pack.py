"""`make bundle`: pack what `make up` builds and downloads, in parts of a chosen size."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local.alone import alone
from local.bundle import archives, contents, manifest, parts, target
from local.bundle.archives import Entry
from local.bundle.manifest import PYTHON, SERVER, TOOLS, Archive, Component, Manifest
from local.bundle.packages import Pinned, read_freeze, read_lock, runtime, split_present
from local.instance import PROJECT, cache_root
from local.servers.choice import RELEASES, environment_folder
from local.tool_list import DEVICE_PLUGIN, ON_REQUEST, Progress
from modelcar.errors import refuse
from modelcar.progress import bar

#: Of what developers need: the policy pack's, by which `make preview` and `make deploy` check.
ALSO = frozenset({"pulumi-policy"})
#: A server for nodes with GPUs, on which the platform runs one program more.
GPU_SERVER = "vllm-cuda"


@dataclass(frozen=True)
class Order:
    """What is asked for.

    out: folder of the bundle.
    python: MAJOR.MINOR of the target's.
    platform: of the target, as uv names it (`x86_64-manylinux_2_34`).
    server: kind of model server; empty: none.
    part_size: bytes of a part at most.
    present: `pip freeze` of the target, or None.
    extra: tools out of ON_REQUEST.
    """

    out: Path
    python: str
    platform: str
    server: str
    part_size: int
    present: Path | None = None
    extra: tuple[str, ...] = ()


def check(order: Order) -> None:
    """Refuse what cannot be packed, before anything is built.

    Raises:
        InputError: with the setting that is wrong.
    """
    machine = order.platform.partition("-")[0]
    if machine != platform.machine() or not contents.glibc_of(order.platform):
        raise refuse(
            f"--platform {order.platform}",
            f"this machine is linux {platform.machine()}, and its tools and Debian parts are packed",
            allowed=f"{platform.machine()}-manylinux_2_34, or another 2_NN (the oldest glibc of the target)",
            fix="make the bundle on a machine of the target's kind",
        )
    if not re.fullmatch(r"3\.(1[1-9]|[2-9]\d)", order.python):
        raise refuse(
            f"--python {order.python}",
            "not a version that the project runs on",
            allowed="MAJOR.MINOR from 3.11 on, as 3.12",
            fix="ask the target: python3 --version",
        )
    if order.server and order.server not in RELEASES:
        raise refuse(
            f"--server {order.server}",
            "no model server of this name",
            allowed=", ".join([*RELEASES, "none"]),
            fix="name one of these",
        )
    unknown = [name for name in order.extra if name not in ON_REQUEST]
    if unknown:
        raise refuse(
            f"--tool {unknown[0]}", "no such tool", allowed=", ".join(ON_REQUEST), fix="name one of these"
        )


def pack(order: Order, uv: Path, progress: Progress) -> Manifest:
    """Make a bundle, one at a time. What was packed before, and has not changed, is taken from the cache.

    Args:
        order: what is asked for.
        uv: the uv program.
        progress: takes a line for each thing that takes time.

    Raises:
        InputError: the order is wrong, or a part of it cannot be built, downloaded or written.
    """
    check(order)
    _require_out(order.out)
    cache = cache_root() / "bundle"
    cache.mkdir(parents=True, exist_ok=True)
    # The lock of unpacking too, which replaces the tools that are packed here.
    with alone(cache_root() / "bundle.lock", progress):
        return _pack(order, cache, uv, progress)


def _require_out(folder: Path) -> None:
    """Make the bundle's folder, and see that files can be made in it: packing takes minutes."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise refuse(
            f"--out {folder}",
            error.strerror or str(error),
            allowed="a folder that is there, or that can be made, and in which files can be made",
            fix='name another one: make bundle ARGS="--out FOLDER"',
        ) from error


def _pack(order: Order, cache: Path, uv: Path, progress: Progress) -> Manifest:
    have = read_freeze(order.present) if order.present else {}

    extra = (*order.extra, *([DEVICE_PLUGIN] if order.server == GPU_SERVER else []))
    files, glibc = contents.programs(cache / "staging", progress, extra)
    work = [Component(TOOLS, target.fingerprint(TOOLS, extra=extra), ())]
    filled: dict[str, list[Entry]] = {TOOLS: files}

    def fetched(pins: Sequence[Pinned]) -> list[Entry]:
        folder = contents.packages(pins, cache / "packages", order.python, order.platform, uv, progress)
        return contents.site_packages(folder, order.python)

    own = runtime(read_lock((PROJECT / "requirements.lock").read_text()), _project()["name"], ALSO)
    work.insert(0, Component(PYTHON, target.fingerprint(PYTHON), ()))
    filled[PYTHON] = fetched(own)
    if order.server:
        lock = read_lock(target.server_lock(order.server).read_text())
        packed, present = split_present(lock, have)
        found = target.fingerprint(SERVER, order.server)
        work.append(Component(SERVER, found, (), tuple(pin.specifier for pin in present)))
        filled[SERVER] = fetched(packed)

    components, written = write(order, work, filled, cache / "archives", progress)
    made = Manifest(
        version=str(_project()["version"]),
        commit=_commit(),
        machine=platform.machine(),
        glibc=max(glibc, contents.glibc_of(order.platform), key=_numbers),
        python=order.python,
        server=order.server,
        server_folder=environment_folder(order.server, cache).name if order.server else "",
        parts=written,
        components=tuple(components),
    )
    manifest.write(made, order.out)
    return made


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _project() -> dict[str, str]:
    found: dict[str, str] = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    return found


def _commit() -> str:
    """Return the checkout's commit, for people to find it again; nothing where there is no Git."""
    command = ["git", "-C", str(PROJECT), "rev-parse", "HEAD"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return told.stdout.strip() if told.returncode == 0 else ""


def write(
    order: Order,
    components: Sequence[Component],
    files: dict[str, list[Entry]],
    cache: Path,
    progress: Progress,
) -> tuple[list[Component], tuple[manifest.Part, ...]]:
    """Compress what is not in the cache, and write the parts."""
    started = time.monotonic()
    cache.mkdir(parents=True, exist_ok=True)
    machine = platform.machine()
    groups = [(it.name, group) for it in components for group in archives.chunks(files[it.name])]

    def packed(job: tuple[str, list[Entry]]) -> Path:
        path = cache / f"{archives.key(job[1], machine)}.tar.xz"
        if not path.exists():
            archives.pack(job[1], path, machine)
        count(sum(entry.room for entry in job[1]))
        return path

    room = sum(entry.room for _, group in groups for entry in group)
    # lzma works without the interpreter's lock
    with (
        _in_words(f"packing into {cache}", "MODELCAR_CACHE"),
        ThreadPoolExecutor(os.cpu_count() or 1) as pool,
        bar("   packing", room) as count,
    ):
        paths = list(pool.map(packed, groups))
    found: dict[str, list[Archive]] = {it.name: [] for it in components}
    with (
        _in_words(f"writing {order.out}", "--out"),
        bar(f"   writing {order.out}", sum(path.stat().st_size for path in paths)) as count,
    ):
        _empty(order.out)
        cutter = parts.Cutter(order.out, order.part_size)
        for (name, group), path in zip(groups, paths, strict=True):
            offset = cutter.position
            cutter.copy(path)
            digest, size = parts.sha256_of(path), cutter.position - offset
            count(size)
            unpacked = sum(entry.room for entry in group)
            found[name].append(Archive(offset, size, digest, len(group), unpacked))
        written = cutter.close()
    _keep(cache, paths)
    progress(f"packed in {time.monotonic() - started:.0f} s")
    filled = [Component(it.name, it.fingerprint, tuple(found[it.name]), it.present) for it in components]
    return filled, written


@contextmanager
def _in_words(what: str, setting: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise refuse(
            what,
            f"{type(error).__name__}: {error}",
            allowed="room for it on that disk",
            fix=f"free some disk, or name a folder on another one by {setting}; then run the command again, "
            "which keeps what is packed",
        ) from error


def _empty(folder: Path) -> None:
    """Remove a former bundle, its manifest first; nothing else is touched."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / manifest.FILE).unlink(missing_ok=True)
    for path in folder.glob(f"{parts.PREFIX}[0-9]*"):
        path.unlink()


#: Archives that no bundle used for so long, in seconds, are removed.
KEPT = 7 * 24 * 3600.0


def _keep(cache: Path, used: Sequence[Path]) -> None:
    """Bound the cache: what this bundle used is fresh again, and what none used for long goes."""
    for path in used:
        path.touch()
    for path in cache.glob("*.tar.xz*"):
        if path.stat().st_mtime < time.time() - KEPT:
            path.unlink()
