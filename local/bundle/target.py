"""Whether a bundle is for this machine and for this checkout; said in words before anything is unpacked."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path

from local import tool_list, tools
from local.bundle.manifest import PYTHON, SERVER, TOOLS, Component, Manifest
from local.bundle.packages import another_python, installed, same_version
from local.instance import KSERVE_VERSION, PROJECT
from modelcar.errors import InputError, Problem

#: Names the folder of packages that a model server may use of the machine (local/servers/environment.py).
PRESENT = "MODELCAR_PRESENT_PACKAGES"

#: Among the tools, and not built: KServe's manifests, and the BusyBox of the images' base layer.
KSERVE, BASE = "kserve", "modelcar/base.lock"

#: Room for Python's bytecode, which is compiled after unpacking, as a share of the packages' files, and for
#: what else is written meanwhile.
BYTECODE = 0.25


def fingerprint(component: str, server: str = "", extra: tuple[str, ...] = ()) -> dict[str, str]:
    """Return what a component is made from in this checkout.

    Args:
        component: its name.
        server: the kind of model server, for that component.
        extra: names out of tools.ON_REQUEST, for the tools.
    """
    if component == TOOLS:
        base = {BASE: _digest(PROJECT / "modelcar" / "base.lock")}
        return {**tools.fingerprints(extra), KSERVE: KSERVE_VERSION, **base}
    if component == SERVER:
        return {f"local/servers/{server}.lock": _digest(server_lock(server))}
    return {"requirements.lock": _digest(PROJECT / "requirements.lock")}


def server_lock(kind: str) -> Path:
    """Return the lock of a model server."""
    return PROJECT / "local" / "servers" / f"{kind}.lock"


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


def require(manifest: Manifest, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse a bundle that is for another machine, another Python or another version of the project.

    Raises:
        InputError: with everything that does not fit.
    """
    problems = [*_machine(manifest), *_python(manifest), *_checkout(manifest)]
    if not problems:
        problems = [*_present(manifest, environment)]
    if problems:
        raise InputError(problems)


def _machine(manifest: Manifest) -> Iterator[Problem]:
    here = f"{sys.platform} {platform.machine()}"
    if here != f"linux {manifest.machine}":
        yield Problem(
            "platform",
            f"the bundle is for linux {manifest.machine}, and this is {here}",
            f"linux {manifest.machine}",
            "make a bundle on a machine of this kind: make bundle",
        )
        return
    glibc = _glibc()
    if _numbers(glibc) < _numbers(manifest.glibc):
        yield Problem(
            "glibc",
            f"{glibc or 'none'} here, and programs of the bundle were linked to {manifest.glibc}",
            f"glibc {manifest.glibc} or newer",
            "make the bundle on a machine whose distribution is no newer than this one's, "
            "or use a newer distribution here",
        )


def _glibc() -> str:
    try:
        name = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        return ""  # another C library
    return name.removeprefix("glibc ")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def _python(manifest: Manifest) -> Iterator[Problem]:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if here == manifest.python and sys.implementation.name == "cpython":
        return
    found = shutil.which(f"python{manifest.python}")
    use = f"make up BUNDLE=… PYTHON3={found}" if found else f"install Python {manifest.python}"
    yield Problem(
        "Python",
        f"the bundle's packages are for CPython {manifest.python}, and {sys.executable} is "
        f"{platform.python_implementation()} {platform.python_version()}",
        f"CPython {manifest.python}",
        f'{use}; or make a bundle for this one: make bundle ARGS="--python {here}"',
    )


def _checkout(manifest: Manifest) -> Iterator[Problem]:
    for component in manifest.components:
        extra = tuple(name for name in tool_list.ON_REQUEST if name in component.fingerprint)
        wanted = fingerprint(component.name, manifest.server, extra)
        differing = sorted(key for key, value in wanted.items() if component.fingerprint.get(key) != value)
        if differing:
            yield Problem(
                f"the bundle's {component.name}",
                f"made from another version of the project ({manifest.version}, commit "
                f"{manifest.commit[:12] or 'unknown'}): {_few(differing)} differ here",
                "what this checkout was made for",
                f"git checkout {manifest.commit[:12]} here, or make a bundle of this checkout: make bundle",
            )


def _few(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def present_folder(component: Component | None, environment: Mapping[str, str] = os.environ) -> str:
    """Return the folder of the machine's own packages that a server's environment rests on, or nothing.

    It is the first that holds all of those that were left out: what MODELCAR_PRESENT_PACKAGES says, which may
    be of a former bundle, then the running Python's folders of packages. Where none does, the first of them,
    which the messages are about.
    """
    if component is None or not component.present:
        return ""
    told = environment.get(PRESENT, "")
    own = sysconfig.get_path("purelib")
    folders = dict.fromkeys([own, sysconfig.get_path("platlib"), *sys.path])
    found = [str(Path(told).absolute())] if told else []
    found += [path for path in folders if path.endswith("-packages") and Path(path).is_dir()]
    whole = (path for path in found if not another_python(Path(path)) and not missing(component, Path(path)))
    return next(whole, (found or [own])[0])


def missing(component: Component, folder: Path) -> list[str]:
    """Return what of the packages that were left out a folder lacks, each with what it has instead."""
    have = installed(folder) if folder.is_dir() else {}
    lacking = []
    for pinned in component.present:
        name, _, version = pinned.partition("==")
        found = have.get(name)
        if found is None or not same_version(version, found):
            lacking.append(f"{pinned} ({f'{found} is there' if found else 'not there'})")
    return lacking


def _present(manifest: Manifest, environment: Mapping[str, str]) -> Iterator[Problem]:
    component = manifest.component(SERVER)
    folder = present_folder(component, environment)
    if component is None or not folder:
        return
    if other := another_python(Path(folder)):
        yield Problem(
            PRESENT,
            f"{folder} (packages of {other})",
            f"a folder of packages of CPython {manifest.python}, with those that the bundle was made without",
            f"unset it, or run make with {PRESENT}=FOLDER (its site-packages)",
        )
    elif lacking := missing(component, Path(folder)):
        yield Problem(
            f"packages of this machine in {folder}",
            f"the bundle was made without packages that were to be there: {_few(lacking)}",
            f"all {len(component.present)} of them, in the version that the server's lock has",
            f"run make with the Python that has them first on PATH, or with {PRESENT}=FOLDER (its "
            'site-packages); or make the bundle again with ARGS="--present FILE" of this machine\'s '
            "`pip freeze`, or without it",
        )


def require_disk(components: list[Component], places: Mapping[str, Path]) -> None:
    """Refuse where what is unpacked would fill a disk.

    Args:
        components: that are to be unpacked.
        places: the folder that each of them goes to, by its name.

    Raises:
        InputError: a disk has too little room.
    """
    wanted: dict[int, tuple[Path, int]] = {}
    for component in components:
        place = places[component.name]
        existing = next(path for path in (place, *place.parents) if path.exists())
        disk = existing.stat().st_dev
        growth = BYTECODE if component.name in (PYTHON, SERVER) else 0.0
        need = int(component.unpacked * (1 + growth))
        wanted[disk] = (existing, wanted.get(disk, (existing, 0))[1] + need)
    problems = []
    for path, need in wanted.values():
        free = shutil.disk_usage(path).free
        if free < need:
            problems.append(
                Problem(
                    f"free disk at {path}",
                    f"{free / 2**30:.1f} GiB",
                    f"{need / 2**30:.1f} GiB for what the bundle holds",
                    "free some disk, or set MODELCAR_CACHE to a folder on a larger one",
                )
            )
    if problems:
        raise InputError(problems)
