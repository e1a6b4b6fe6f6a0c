"""`make up BUNDLE=FOLDER`: check a bundle, and unpack what of it is not there yet.

Tools come to lie in the cache, the project's Python environment in `.venv`, the model server's environment
in the cache. Each is marked as whole when it is, last of all; what was interrupted begins again.
"""

from __future__ import annotations

import json
import lzma
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from local import made_from, tool_build, tool_list, tools
from local.alone import alone
from local.bundle import archives, manifest, parts, target
from local.bundle.manifest import PYTHON, SERVER, TOOLS, Archive, Component, Manifest
from local.downloads import obtain
from local.instance import PROJECT, cache_root
from modelcar.errors import refuse
from modelcar.progress import bar

Progress = Callable[[str], None]


class BundleError(Exception):
    """A part of the bundle does not work here; the message is for the user."""


#: In each folder that a component was unpacked to: its digest.
MARKER = ".bundle"
#: What later commands of `make` have to know; the Makefile reads it.
MAKE_FILE = "bundle.mk"
#: What the environment was made from.
MADE_FROM = "bundle.json"
#: Its time says which requirements.lock the environment is of; the Makefile compares it.
LOCKED = ".locked"


def unpack(folder: Path, progress: Progress, environment: Mapping[str, str] = os.environ) -> None:
    """Unpack a bundle, or what of it is not unpacked yet, or is of another Python.

    Args:
        folder: of the bundle.
        progress: takes a line for each thing that takes time.
        environment: MODELCAR_PRESENT_PACKAGES and MODELCAR_CACHE are read from it.

    Raises:
        InputError: it is no whole bundle, or not for this machine or this checkout; or the disk is too full.
    """
    os.umask(0o022)
    found = manifest.read(folder)
    target.require(found, environment)
    cache_root().mkdir(parents=True, exist_ok=True)
    with alone(cache_root() / "bundle.lock", progress):
        places = _places(found)
        wanted = [it for it in found.components if not _is_unpacked(it, places[it.name])]
        if wanted:
            started = time.monotonic()
            parts.verify(found, folder)
            progress(f"{len(found.parts)} parts are whole ({time.monotonic() - started:.0f} s)")
            target.require_disk(wanted, places)
            _unpack(found, folder, wanted, places, progress, environment)
        server = found.component(SERVER)
        if server and server not in wanted and not _is_finished(server, found, places[SERVER], environment):
            _finish(server, found, places[SERVER], progress, environment)
        _write_make_file(found, folder, environment)
        (places[PYTHON] / LOCKED).touch()


def _places(found: Manifest) -> dict[str, Path]:
    """Return the folder that each component goes to."""
    places = {PYTHON: PROJECT / ".venv", TOOLS: tool_list.tools_folder()}
    if found.server:
        places[SERVER] = cache_root() / "servers" / found.server_folder
    return places


def _is_unpacked(component: Component, place: Path) -> bool:
    try:
        marked = (place / MARKER).read_text().strip() == component.digest
    except OSError:
        return False
    if component.name == TOOLS:
        return marked and _are_whole(component, place)
    python = place / "bin" / "python3"
    return marked and python.exists() and python.resolve() == made_from.base_python()


def _is_finished(server: Component, found: Manifest, place: Path, environment: Mapping[str, str]) -> bool:
    """Tell whether later commands take a server as it is: made with this Python, on these packages."""
    present = target.present_folder(server, environment)
    wanted = made_from.fingerprint(target.server_lock(found.server), Path(present) if present else None)
    return made_from.marked(place) == wanted


def _are_whole(component: Component, place: Path) -> bool:
    """Tell whether tools are there as they were unpacked: the cache may be others' too, who replace some."""
    kserve = f"kserve-{component.fingerprint[target.KSERVE]}"
    folders = ["debian", "netfilter/debian", *(f"{kserve}/{part}" for part in tool_build.KSERVE_PARTS)]
    built = [tool for tool in tool_list.TOOLS if tool.name in _built(component)]
    return all((place / folder).is_dir() for folder in folders) and all(
        stamp == component.fingerprint[tool.name] or obtain.is_current(tool, stamp)
        for tool in built
        for stamp in [tool_build.read_stamp(tool)]
    )


def _built(component: Component) -> list[str]:
    return [name for name in component.fingerprint if name not in (target.KSERVE, target.BASE)]


def _unpack(
    found: Manifest,
    folder: Path,
    wanted: list[Component],
    places: Mapping[str, Path],
    progress: Progress,
    environment: Mapping[str, str],
) -> None:
    started = time.monotonic()
    for component in wanted:
        _prepare(component, places[component.name])
    jobs = [
        (str(folder), found, archive, str(places[component.name]))
        for component in wanted
        for archive in component.archives
    ]
    jobs.sort(key=lambda job: -job[2].size)  # the largest first, so that none is left alone at the end
    try:
        with ProcessPoolExecutor(min(len(jobs), os.cpu_count() or 1)) as pool:
            results = pool.map(_unpack_archive, jobs)  # its processes begin here, before there is a thread
            files = 0
            with bar("   unpacking", sum(job[2].size for job in jobs)) as count:
                for job, unpacked in zip(jobs, results, strict=True):
                    files += unpacked
                    count(job[2].size)
    except (OSError, ValueError, EOFError, BrokenProcessPool, lzma.LZMAError, tarfile.TarError) as error:
        raise refuse(
            f"BUNDLE={folder}",
            f"cannot be unpacked ({type(error).__name__}: {error})",
            allowed="archives as `make bundle` wrote them, and room for what is in them",
            fix="look at disk and memory of this machine, then run the command again",
        ) from error
    progress(f"{files} files unpacked in {time.monotonic() - started:.0f} s")
    for component in wanted:
        _finish(component, found, places[component.name], progress, environment)
        (places[component.name] / MARKER).write_text(component.digest + "\n")


def _unpack_archive(job: tuple[str, Manifest, Archive, str]) -> int:
    folder, found, archive, place = job
    os.umask(0o022)
    with parts.Stream(Path(folder), found.parts, archive.offset, archive.size) as packed:
        return archives.unpack(packed, Path(place))


def _prepare(component: Component, place: Path) -> None:
    """Make the folder ready: an environment is made anew, tools are replaced file by file."""
    if component.name == TOOLS:
        (place / MARKER).unlink(missing_ok=True)
        place.mkdir(parents=True, exist_ok=True)
        return
    if place.is_symlink():
        place.unlink()
    elif place.exists():
        former = place.with_name(f"{place.name}.former")  # so that half of it cannot look whole
        shutil.rmtree(former, ignore_errors=True)
        place.rename(former)
        shutil.rmtree(former)
    command = [str(made_from.base_python()), "-m", "venv", "--without-pip", str(place)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise refuse(
            " ".join(command[1:4]),
            f"exit status {result.returncode}: {(result.stderr or result.stdout).strip()}",
            allowed="a Python with its standard library, venv included",
            fix="install it (Debian, Ubuntu: python3-venv)",
        )


def _finish(
    component: Component, found: Manifest, place: Path, progress: Progress, environment: Mapping[str, str]
) -> None:
    if component.name == TOOLS:
        tools.mark_as_built({name: component.fingerprint[name] for name in _built(component)})
    elif component.name == PYTHON:
        (place / MADE_FROM).write_text(json.dumps(component.fingerprint) + "\n")
    else:
        _finish_server(component, found.server, progress, environment)


def _finish_server(
    component: Component, kind: str, progress: Progress, environment: Mapping[str, str]
) -> None:
    """Compile and try the server: by the project's own environment, which is unpacked by now."""
    started = time.monotonic()
    # Also where it is none: a former bundle's, or the user's, would not be there in later commands.
    _run_finish(kind, {**environment, target.PRESENT: target.present_folder(component, environment)})
    progress(f"model server {kind} made ready in {time.monotonic() - started:.0f} s")


def _run_finish(kind: str, variables: Mapping[str, str]) -> None:
    command = [str(PROJECT / ".venv" / "bin" / "python"), "-m", "local.bundle", "finish", kind]
    done = subprocess.run(command, cwd=PROJECT, env=variables, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise BundleError(done.stderr.strip().removeprefix("error: "))


# --- what later commands have to know ---------------------------------------------------------------


def _write_make_file(found: Manifest, folder: Path, environment: Mapping[str, str]) -> None:
    """Write what the Makefile reads; left alone where nothing changes, as make starts again when it does."""
    lines = [
        "# Written by `make up BUNDLE=…`: this checkout's environment came out of that bundle.",
        f"BUNDLED := {_escaped(str(folder.resolve()))}",
    ]
    exported = {"MODELCAR_CACHE": environment.get("MODELCAR_CACHE", ""), "MODELCAR_SERVER": found.server}
    lines += [f"export {name} ?= {_escaped(value)}" for name, value in exported.items() if value]
    if server := found.component(SERVER):
        # Whatever the shell says: the environment rests on this folder, or on none, and cannot be made again.
        present = target.present_folder(server, environment)
        lines.append(f"override export {target.PRESENT} :={f' {_escaped(present)}' if present else ''}")
    path, text = PROJECT / ".venv" / MAKE_FILE, "\n".join(lines) + "\n"
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def _escaped(text: str) -> str:
    return text.replace("$", "$$").replace("#", "\\#")


def check(environment: Mapping[str, str] = os.environ) -> None:
    """Look whether the environment that came out of a bundle is still that of requirements.lock.

    Raises:
        InputError: the lock has changed since.
    """
    del environment
    place = PROJECT / ".venv"
    try:
        made_from = json.loads((place / MADE_FROM).read_text())
    except (OSError, ValueError):
        made_from = None
    if made_from == target.fingerprint(PYTHON):
        (place / LOCKED).touch()
        return
    raise refuse(
        "requirements.lock",
        "has changed since .venv was unpacked from a bundle",
        allowed="the lock that the bundle was made from",
        fix="make a bundle of this checkout (make bundle), then: make up BUNDLE=FOLDER; "
        "or, where registries can be reached: rm -r .venv, and run the command again",
    )
