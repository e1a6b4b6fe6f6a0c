"""How a program comes to its place: out of its maker's release, or built from its pinned Go module; once."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from local import expected, kubernetes_provider, room
from local.alone import alone
from local.downloads import go_module, obtain, web
from local.downloads.choice import Mode, mode
from local.downloads.web import DownloadError
from local.instance import PROJECT
from local.plugins import KUBERNETES_PLUGIN
from local.room import GIB, Need
from local.tool_list import TOOLS, Plugin, Progress, Tool, tools_folder
from modelcar.errors import refuse
from modelcar.progress import working

#: What the newest of the programs asks for in its go.mod (Pulumi's CLI).
OLDEST_GO = (1, 26, 6)

#: Without DWARF, which the linker would leave out: a fifth less to compute.
COMPILER_FLAGS = "-gcflags=all=-dwarf=false"
#: The compiler collects its garbage less often, where there is the memory for it: a tenth less to compute.
GOGC, MEMORY_FOR_IT = "400", 8 * 2**30

#: Where go.dev/doc/install puts it, which `sudo` leaves out.
USUAL_GO = Path("/usr/local/go/bin/go")

#: From this one on Go gets a newer Go by itself, where GOTOOLCHAIN lets it (go.dev/doc/toolchain).
GETS_NEWER = (1, 21)

#: What grows on a first build, and to how many bytes, measured: Go's caches, and what is kept.
BUILD_DISK = {"GOMODCACHE": int(5.5 * GIB), "GOCACHE": 4 * GIB, "MODELCAR_CACHE": int(1.6 * GIB)}
#: That a later build may take at most.
LEAST_BUILD_DISK = GIB


def find_or_build(tool: Tool, progress: Progress) -> Path:
    """Return a program on PATH, else download or build it.

    Raises:
        InputError: as `provide`.
    """
    on_path = (found for name in tool.on_path if (found := which(name)))
    return next(on_path, None) or provide(tool, progress)


def stamp_of(tool: Tool) -> Path:
    """Return the file that says what a program was made from: a fingerprint of pins, or a download."""
    return tools_folder() / "stamps" / tool.name


def read_stamp(tool: Tool) -> str:
    """Return a program's stamp, nothing where the program or its stamp is not there."""
    stamp = stamp_of(tool)
    return stamp.read_text() if tool.target.exists() and stamp.exists() else ""


def is_ready(tool: Tool) -> bool:
    """Tell whether a program is there, of today's pins or of today's release, as MODELCAR_TOOLS wants it.

    Raises:
        InputError: MODELCAR_TOOLS has no value that it can have.
    """
    stamp, chosen = read_stamp(tool), mode()
    built, downloaded = stamp == fingerprint(tool), obtain.is_current(tool, stamp)
    if chosen is Mode.SOURCE:
        return built
    return downloaded or (built and (chosen is Mode.AUTO or not obtain.has_release(tool)))


def provide(tool: Tool, progress: Progress) -> Path:
    """Return a program, whatever is on PATH: the one that is there, else its maker's release, else a build.

    Raises:
        InputError: a download has a wrong checksum; Go is missing, the disk is too full or the build failed;
            or nothing may be built (MODELCAR_TOOLS=release).
    """
    if is_ready(tool):
        return tool.target
    locks = tools_folder() / "locks"  # several checkouts may share the folder
    locks.mkdir(parents=True, exist_ok=True)
    with alone(locks / tool.name, progress):
        if is_ready(tool) or obtain.attempt(tool, stamp_of(tool), progress):
            return tool.target
        return _build(tool, progress)


def _build(tool: Tool, progress: Progress) -> Path:
    """Build a program from its pinned Go module."""
    target, stamp, wanted = tool.target, stamp_of(tool), fingerprint(tool)
    require_go(tool)
    require_disk()
    progress(f"building {tool.name} {tool.version} from its Go module …")
    started = time.monotonic()
    target.parent.mkdir(parents=True, exist_ok=True)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)  # it is of what is replaced
    _compile(tool, target, f"-s -w {tool.ldflags}".strip())
    stamp.write_text(wanted)
    progress(f"built {tool.name} {tool.version} in {time.monotonic() - started:.0f} s")
    return target


def build_with_symbols(tool: Tool, folder: Path) -> Path:
    """Build a program from its pins to a folder, with the symbols that an audit looks at; return it.

    Raises:
        InputError: Go is missing, the disk is too full or the build failed.
    """
    require_go(tool)
    require_disk()
    target = folder / tool.name
    _compile(tool, target, tool.ldflags)
    return target


def _compile(tool: Tool, target: Path, ldflags: str) -> None:
    command = ["go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly", COMPILER_FLAGS]
    command += ["-ldflags", ldflags, "-o", str(target)]
    label, seconds = f"   building {tool.name} {tool.version}", expected.of_build(tool.name)
    with tempfile.TemporaryDirectory(prefix="modelcar-build-") as scratch, working(label, seconds):
        result = subprocess.run(
            [*command, *_overlay(tool, Path(scratch)), tool.package],
            cwd=_module_folder(tool.module),
            env={**_collecting_less(), **os.environ, "CGO_ENABLED": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if result.returncode:
        tail = "\n".join(result.stdout.strip().splitlines()[-15:])
        raise refuse(
            f"go build {tool.package}",
            f"exit status {result.returncode}\n{tail}",
            allowed="a build from the pinned modules",
            fix=_fix(result.stdout),
        )


def _fix(said: str) -> str:
    """Return what helps where Go fails."""
    if "no space left on device" in said:
        return "free some disk (`go env GOCACHE GOMODCACHE`, $TMPDIR), then run the command again"
    return "check that a Go module proxy is reachable (`go env GOPROXY`), then run the command again"


def _collecting_less() -> dict[str, str]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"GOGC": GOGC} if memory >= MEMORY_FOR_IT else {}


def _overlay(tool: Tool, folder: Path) -> list[str]:
    """Write the files that a tool embeds to a folder; return what `go build` needs to be told of them."""
    if tool.name != KUBERNETES_PLUGIN:
        return []
    module = Path(download_module(tool.module, kubernetes_provider.MODULE)["Dir"])
    files = kubernetes_provider.embedded_files(module, tool.version)
    return ["-overlay", str(kubernetes_provider.overlay(_module_folder(tool.module), files, folder))]


def which(name: str) -> Path | None:
    """Look on PATH, but not at ours: what we built is checked against its pins, and a stand-in is none."""
    found = shutil.which(name)
    if not found:
        return None
    path = Path(found)
    built = path.parent == tools_folder() / "bin" or path.resolve().parts[-3:-1] == ("tools", "plugins")
    # Also another checkout's: a shell may have its environment.
    standin = path.resolve().parts[-3:-1] == ("standins", "bin")
    return None if built or standin else path


def _module_folder(module: str) -> Path:
    return PROJECT / "local" / "tools" / module


def fingerprint(tool: Tool) -> str:
    """Everything that a build depends on, so that a changed pin rebuilds and nothing else does."""
    digest = hashlib.sha256(f"{tool}".encode())
    folder = _module_folder(tool.module)
    for file in ("go.mod", "go.sum"):
        digest.update((folder / file).read_bytes())
    if tool.package.startswith("./"):
        package = folder / tool.package
        for source in sorted([*package.rglob("*.go"), *package.rglob("go.mod")]):
            if not source.name.endswith("_test.go"):
                digest.update(f"{source.name}\0".encode() + source.read_bytes())
    if isinstance(tool, Plugin):
        digest.update(Path(kubernetes_provider.__file__).read_bytes())
    return digest.hexdigest()


def go_environment() -> dict[str, str]:
    """Return what Go says of itself, whatever modules are around; nothing where it is not there, or fails."""
    names = ("GOVERSION", "GOTOOLCHAIN", "GOMODCACHE", "GOCACHE")
    if not shutil.which("go"):
        return {}
    try:
        said = subprocess.run(
            ["go", "env", "-json", *names], cwd="/", capture_output=True, text=True, check=False
        )
        found = json.loads(said.stdout)
    except (OSError, ValueError):
        return {}
    known = isinstance(found, dict) and "GOVERSION" in found
    return {name: found.get(name) or "" for name in names} if known else {}


def go_problem(go: Mapping[str, str]) -> tuple[str, str]:
    """Return why Go builds no tool here, and the fix; both are empty where it does, or does not tell.

    Args:
        go: what it says of itself.
    """
    oldest = _words(OLDEST_GO)
    install = f"install Go {oldest} or newer from https://go.dev/dl/, before others on PATH"
    if not shutil.which("go"):
        if USUAL_GO.exists():  # as with sudo, which has a PATH of its own
            folder = USUAL_GO.parent
            there = f"put {folder}, where one is, on PATH (sudo env PATH=$PATH:{folder} make up)"
            return "not on PATH", f"{there}, or {install}"
        return "not on PATH", install
    if not go:
        return "", ""
    number = re.search(r"go(\d+)\.(\d+)(?:\.(\d+))?", go["GOVERSION"])
    version = tuple(int(part or 0) for part in number.groups()) if number else (0,)
    gets_newer = version >= GETS_NEWER
    if version >= OLDEST_GO or (gets_newer and re.search("auto|path", go["GOTOOLCHAIN"])):
        return "", ""
    found = f"{go['GOVERSION'] or 'of a version before 1.16'}, too old"
    if gets_newer:
        return (
            f"{found}, and GOTOOLCHAIN={go['GOTOOLCHAIN']} keeps it from getting a newer one",
            f"export GOTOOLCHAIN=auto, or {install}",
        )
    return found, install


def _words(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def require_go(tool: Tool) -> None:
    """Check that there is a Go compiler that builds the tools.

    Raises:
        InputError: there is none, or it is too old.
    """
    found, fix = go_problem(go_environment())
    if found:
        raise refuse(
            "go",
            f"{found}, needed to build {tool.name} {tool.version}",
            allowed=f"Go {_words(OLDEST_GO)} or newer, or {_words(GETS_NEWER)} with GOTOOLCHAIN=auto",
            fix=f"{fix}; then run the command again",
        )


def build_needs(go: Mapping[str, str]) -> list[Need]:
    """Return what a first build of the tools takes of disk.

    Args:
        go: what Go says of itself.
    """
    places = {**go, "MODELCAR_CACHE": str(tools_folder())}
    named = {name: Path(places.get(name) or "off") for name in BUILD_DISK}
    return [Need(name, place, BUILD_DISK[name]) for name, place in named.items() if place.is_absolute()]


def left_to_take(need: Need) -> Need:
    """Return what is left of a need, as its folder is there in part."""
    return replace(need, size=max(0, need.size - room.size_of(need.folder)))


def require_disk() -> None:
    """Check that Go's caches and what is kept have room to grow.

    Raises:
        InputError: a disk is too full.
    """
    for disk in room.disks(build_needs(go_environment())):
        if disk.free >= disk.wanted:
            continue
        wanted = max(LEAST_BUILD_DISK, sum(left_to_take(need).size for need in disk.needs))
        if disk.free < wanted:
            folders = ", ".join(str(need.folder) for need in disk.needs)
            named = " ".join(f"{need.name}=FOLDER" for need in disk.needs)
            raise refuse(
                f"free disk at {folders}",
                f"{disk.free / GIB:.1f} GiB",
                allowed=f"{wanted / GIB:.1f} GiB to build the tools",
                fix=f"free some disk, or name folders on a larger one: export {named}",
            )


#: What is kept of KServe's module: its manifests, and its Helm charts.
KSERVE_PARTS = ("config", "charts")


def kserve_folder(progress: Progress, version: str) -> Path:
    """Return KServe's own CRDs, webhooks, configuration and charts, kept beside the tools."""
    target = tools_folder() / f"kserve-{version}"
    missing = [part for part in KSERVE_PARTS if not (target / part).exists()]
    if not missing:
        return target
    with _kserve_module(version, progress) as module:
        target.mkdir(parents=True, exist_ok=True)
        for part in missing:
            # Of this process alone, so that two runs cannot disturb each other.
            staging = target.with_name(f"{target.name}.{part}.{os.getpid()}.part")
            shutil.rmtree(staging, ignore_errors=True)
            shutil.copytree(module / part, staging, copy_function=shutil.copyfile)
            try:
                staging.rename(target / part)
            except OSError:
                shutil.rmtree(staging, ignore_errors=True)
                if not (target / part).exists():
                    raise
    progress(f"KServe {version} {' and '.join(missing)} ready")
    return target


@contextmanager
def _kserve_module(version: str, progress: Progress) -> Iterator[Path]:
    """Give a folder with KServe's Go module, by Go or, where that is not here, straight from the proxy."""
    tool = next(tool for tool in TOOLS if tool.module.startswith("kserve") and tool.version == version)
    name, found = "github.com/kserve/kserve", None
    tools_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".kserve-", dir=tools_folder()) as scratch:
        if go_problem(go_environment())[0] and obtain.may_download():
            pins = _module_folder(tool.module) / "go.sum"
            try:
                found = go_module.fetch(name, f"v{version}", pins, KSERVE_PARTS, Path(scratch), web.WEB)
            except DownloadError as error:
                progress(f"KServe {version}: its manifests cannot be downloaded without Go ({error})")
        if found is None:
            require_go(tool)
            found = Path(download_module(tool.module, f"{name}@v{version}")["Dir"])
        yield found


def download_module(pins: str, module: str) -> dict[str, Any]:
    """Download a Go module, unless it is in the module cache; return what Go says of it (Dir, Version, …).

    Args:
        pins: folder below local/tools/ whose go.mod and go.sum it is held to.
        module: its path, with `@VERSION` where go.mod does not say which.

    Raises:
        InputError: it cannot be downloaded.
    """
    with working(f"   downloading Go module {module}"):
        result = subprocess.run(
            ["go", "mod", "download", "-json", module],
            cwd=_module_folder(pins),
            capture_output=True,
            text=True,
            check=False,
        )
    if result.returncode:
        raise refuse(
            f"Go module {module}",
            result.stderr.strip() or result.stdout.strip(),
            allowed="a download from a Go module proxy",
            fix=_fix(result.stderr),
        )
    found: dict[str, Any] = json.loads(result.stdout)
    return found
