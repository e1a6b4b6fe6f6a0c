"""Programs that come from Debian packages: found on the machine, or unpacked beside the built tools."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from local.alone import alone
from modelcar.errors import InputError, refuse
from modelcar.progress import say, working

Progress = Callable[[str], None]


@dataclass(frozen=True)
class DebianPart:
    """A program from a Debian package. `program` is looked up on PATH and in the folders of Debian."""

    program: str
    package: str


DEBIAN_PARTS = (
    DebianPart("etcd", "etcd-server"),
    DebianPart("docker-registry", "docker-registry"),
    DebianPart("runc", "runc"),
    DebianPart("bridge", "containernetworking-plugins"),
    DebianPart("busybox", "busybox-static"),
    DebianPart("ip", "iproute2"),
    DebianPart("unshare", "util-linux"),
)


def debian_parts(root: Path, progress: Progress) -> dict[str, Path]:
    """Find Debian's parts; unpack missing ones into a folder, so that no system service is started.

    Raises:
        InputError: parts are missing and cannot be unpacked here; with the command that installs them.
    """
    found = {part.program: find_debian(part.program, root) for part in DEBIAN_PARTS}
    missing = sorted({part.package for part in DEBIAN_PARTS if found[part.program] is None})
    if missing:
        started = time.monotonic()
        unpack_debian(missing, root, progress)
        found = {part.program: find_debian(part.program, root) for part in DEBIAN_PARTS}
        progress(f"Debian parts ({', '.join(missing)}) unpacked in {time.monotonic() - started:.0f} s")
    still_missing = sorted({part.package for part in DEBIAN_PARTS if found[part.program] is None})
    if still_missing:
        raise _cannot_install(still_missing, "not in the packages that were unpacked")
    programs = {name: path for name, path in found.items() if path is not None}
    _require_shared_libraries(programs)
    return programs


def find_debian(program: str, root: Path) -> Path | None:
    """Return where a program is: on PATH, among the unpacked packages, or in Debian's own folders.

    Args:
        program: its name.
        root: folder that packages were unpacked to.
    """
    folders = ["usr/bin", "usr/sbin", "bin", "sbin", "usr/lib/cni"]
    if program == "bridge":  # a CNI plug-in; iproute2 has a program of the same name
        candidates = [Path("/usr/lib/cni/bridge"), Path("/opt/cni/bin/bridge")]
        candidates += [root / "usr/lib/cni/bridge"] if is_whole(root) else []
        return next((path for path in candidates if path.exists()), None)
    if program == "busybox":
        candidates = [root / "bin/busybox", root / "usr/bin/busybox"] if is_whole(root) else []
        candidates += [Path("/bin/busybox")]
        return next((path for path in candidates if path.exists() and _is_static(path)), None)
    on_path = shutil.which(program)
    if on_path:
        return Path(on_path)
    local = [root / folder / program for folder in folders] if is_whole(root) else []
    system = [Path("/") / folder / program for folder in folders]
    return next((path for path in [*local, *system] if path.exists()), None)


def _is_static(path: Path) -> bool:
    """A static program has no interpreter segment (PT_INTERP), which names the dynamic loader."""
    with path.open("rb") as file:
        return b"/ld-linux" not in file.read(4096) and b"/ld-musl" not in path.read_bytes()[:4096]


def is_whole(root: Path) -> bool:
    """Tell whether packages were unpacked to a folder to the end.

    It comes to its place when it is whole. Versions before 0.4.0 unpacked in place, and removed the packages
    last: where these are there still, the rest may not be.
    """
    return root.is_dir() and not (root / "packages").exists()


def unpack_debian(packages: list[str], root: Path, progress: Progress = say) -> None:
    """Download packages and unpack them into a folder, beside what was unpacked there before.

    Nothing is installed. Several checkouts may share the folder: one at a time works on it.

    Args:
        packages: their names.
        root: the folder.
        progress: takes a line where another process is waited for.

    Raises:
        InputError: this is no Debian, or they cannot be downloaded.
    """
    if os.environ.get("MODELCAR_NO_INSTALL"):
        raise _cannot_install(packages, "MODELCAR_NO_INSTALL is set")
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise _cannot_install(packages, "this machine has no apt-get")
    root.parent.mkdir(parents=True, exist_ok=True)
    part, downloads, former = (root.with_name(f"{root.name}.{end}") for end in ("part", "packages", "former"))
    with alone(root.with_name(f"{root.name}.lock"), progress):
        for folder in (part, downloads, former):  # of a run that was killed
            shutil.rmtree(folder, ignore_errors=True)
        downloads.mkdir()
        _own_by_sandbox_user(downloads)
        with working(f"   downloading and unpacking {len(packages)} Debian packages"):
            _fetch(packages, downloads)
            if is_whole(root):
                shutil.copytree(root, part, symlinks=True)
            part.mkdir(exist_ok=True)
            for archive in sorted(downloads.glob("*.deb")):
                subprocess.run(["dpkg-deb", "-x", str(archive), str(part)], check=True)
        if root.exists():
            root.rename(former)
        part.rename(root)
        for folder in (downloads, former):
            shutil.rmtree(folder, ignore_errors=True)


def _fetch(packages: list[str], folder: Path) -> None:
    """Download packages; with new lists of them where the machine's are missing or too old."""
    fetch = ["apt-get", "download", *packages]
    result = subprocess.run(fetch, cwd=folder, capture_output=True, text=True, check=False)
    if not result.returncode:
        return
    update = subprocess.run(["apt-get", "update"], capture_output=True, text=True, check=False)
    result = subprocess.run(fetch, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        reason = (result.stderr or update.stderr).strip().splitlines()
        raise _cannot_install(packages, reason[-1] if reason else "apt-get download failed")


def debian_script(program: str, packages: list[str], folder: Path) -> Path:
    """Return a script that runs a program: of packages unpacked with their libraries, or the one on PATH.

    Args:
        program: its name.
        packages: that hold it and the libraries that are not everywhere.
        folder: that the script and the packages are kept in.

    Raises:
        InputError: it is not on PATH, and cannot be unpacked here.
    """
    root = folder / "debian"
    own, on_path = root / "usr/bin" / program, system_program(program, folder)
    if not (is_whole(root) and own.exists()) and on_path is None:
        unpack_debian(packages, root)
    if (is_whole(root) and own.exists()) or on_path is None:
        libraries = ":".join(str(path) for path in root.glob("**/*-linux-gnu"))
        return write_script(folder / program, ["env", f"LD_LIBRARY_PATH={libraries}", str(own)])
    return write_script(folder / program, [on_path])


def system_program(name: str, scripts: Path) -> str | None:
    """Return a program's path, on PATH or where administrators' are; no script of ours that runs it.

    Args:
        name: of the program.
        scripts: folder of our scripts, which may be on PATH.
    """
    folders = [*os.environ.get("PATH", "").split(os.pathsep), "/usr/sbin", "/sbin"]
    return shutil.which(name, path=os.pathsep.join(it for it in folders if it and Path(it) != scripts))


def write_script(script: Path, command: list[str]) -> Path:
    """Write a script that runs a command, and return it.

    One that is there is written anew where it differs: the paths in it are another checkout's where a folder
    was copied or moved.
    """
    text = f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n'
    if not script.exists() or script.read_text() != text:
        script.parent.mkdir(parents=True, exist_ok=True)
        part = script.with_name(f"{script.name}.{os.getpid()}.part")  # the script may be running
        part.write_text(text)
        part.chmod(0o755)
        part.replace(script)
    return script


def _own_by_sandbox_user(folder: Path) -> None:
    """apt downloads as the user _apt where it can; without this it only warns."""
    try:
        shutil.chown(folder, "_apt")
    except (LookupError, PermissionError):
        return


def _require_shared_libraries(programs: dict[str, Path]) -> None:
    """An unpacked package brings no libraries: name those that the machine lacks."""
    runc = programs["runc"]
    result = subprocess.run([str(runc), "--version"], capture_output=True, text=True, check=False)
    if result.returncode:
        raise _cannot_install(["libseccomp2"], f"{runc} does not start: {result.stderr.strip()}")


def _cannot_install(packages: list[str], reason: str) -> InputError:
    return refuse(
        "Debian packages " + ", ".join(packages),
        f"missing ({reason})",
        allowed="these programs on PATH: " + ", ".join(part.program for part in DEBIAN_PARTS),
        fix=f"sudo apt-get update && sudo apt-get install -y --no-install-recommends {' '.join(packages)}",
    )
