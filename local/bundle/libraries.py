"""Programs with the shared libraries that a bare machine may lack, so that they run from any folder.

glibc itself is the target's: its oldest version that the programs run with goes into the manifest. Other
libraries are packed beside them, and the programs are told to look there first (`$ORIGIN` in DT_RUNPATH,
ld.so(8)). A variable would not do: runc starts itself again with an environment of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from local.debian import debian_script
from modelcar.errors import refuse

#: Parts of glibc, which belong to the dynamic loader of the machine.
GLIBC = re.compile(
    r"(ld-linux[\w.-]*|lib(c|m|dl|rt|pthread|resolv|util|nsl|nss_\w+|anl|BrokenLocale))\.so\.\d+"
)
#: Where libraries go, below the folder that holds bin/ or sbin/.
FOLDER = "lib/bundled"

_NEEDED = re.compile(r"^\s*(?P<name>\S+) => (?P<path>/\S+|not found)")
_GLIBC_VERSION = re.compile(rb"GLIBC_(\d+)\.(\d+)")


def needed(program: Path, folders: Sequence[Path] = ()) -> dict[str, Path]:
    """Return the libraries that a program loads, glibc's left out, by the names that it asks for.

    Args:
        program: of this machine's own kind.
        folders: that are looked in beside the system's.

    Raises:
        InputError: a library is not on this machine.
    """
    search = os.pathsep.join([*map(str, folders), os.environ.get("LD_LIBRARY_PATH", "")]).strip(os.pathsep)
    variables = {**os.environ, "LC_ALL": "C", **({"LD_LIBRARY_PATH": search} if search else {})}
    shown = subprocess.run(["ldd", str(program)], env=variables, capture_output=True, text=True, check=False)
    found = {}
    for line in shown.stdout.splitlines():
        match = _NEEDED.match(line)
        if match is None or GLIBC.fullmatch(match["name"]):
            continue
        if match["path"] == "not found":
            raise refuse(
                f"{match['name']}, which {program} needs",
                "not found",
                allowed="a program that runs on this machine",
                fix="install the package that holds it, then run the command again",
            )
        found[match["name"]] = Path(match["path"])
    return found


def bring(programs: Iterable[tuple[Path, Path]], root: Path, patchelf: Path) -> None:
    """Copy programs, and the libraries that they need, and tell them where those are.

    Args:
        programs: each with its place below `root`.
        root: `usr` of the folder that is packed; libraries go to FOLDER in it.
        patchelf: the program.

    Raises:
        InputError: a library is missing on this machine.
        CalledProcessError: patchelf failed.
    """
    libraries = root / FOLDER
    for source, target in programs:
        place = root / target
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.resolve(), place)
        place.chmod(0o755)
        wanted = needed(source)
        if not wanted:
            continue
        up = "/".join([".."] * len(target.parent.parts))
        _look_in(place, f"$ORIGIN/{up}/{FOLDER}", patchelf)
        libraries.mkdir(parents=True, exist_ok=True)
        for name, path in wanted.items():
            if not (libraries / name).exists():
                shutil.copyfile(path.resolve(), libraries / name)
                (libraries / name).chmod(0o644)
                _look_in(libraries / name, "$ORIGIN", patchelf)


def _look_in(path: Path, where: str, patchelf: Path) -> None:
    subprocess.run([str(patchelf), "--set-rpath", where, str(path)], check=True, capture_output=True)


def patchelf(folder: Path) -> Path:
    """Return the program that changes where another one looks for its libraries.

    Raises:
        InputError: it is not on PATH, and Debian's package cannot be had.
    """
    return debian_script("patchelf", ["patchelf"], folder)


def oldest_glibc(files: Iterable[Path]) -> tuple[int, int]:
    """Return the version of glibc that programs and libraries need, by the symbol versions in them."""
    found = [(0, 0)]
    for path in files:
        content = path.read_bytes()
        if content[:4] == b"\x7fELF":
            found += [(int(major), int(minor)) for major, minor in _GLIBC_VERSION.findall(content)]
    return max(found)
