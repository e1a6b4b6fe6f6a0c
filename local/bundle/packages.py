"""Python packages of a lock, and which of them a machine has already."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from modelcar.errors import refuse

#: A requirement as `uv pip compile --generate-hashes` writes it: its first line, at the line's beginning.
_PINNED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?==(?P<version>[^\s;\\]+)")


@dataclass(frozen=True)
class Pinned:
    """One requirement of a lock.

    name: as PEP 503 normalises it.
    text: its lines, with marker and hashes.
    wanted_by: what the lock's comments (`# via …`) say of who needs it.
    """

    name: str
    version: str
    text: str
    wanted_by: tuple[str, ...] = ()

    @property
    def specifier(self) -> str:
        """Return NAME==VERSION."""
        return f"{self.name}=={self.version}"


def normalised(name: str) -> str:
    """Return a package's name as PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def same_version(locked: str, found: str) -> bool:
    """Tell whether a version is the locked one; a local suffix of it does not count (PEP 440, `==`).

    torch 2.11.0+cu130 is torch 2.11.0, from another index.
    """
    return found == locked or found.partition("+")[0] == locked


def read_lock(text: str) -> list[Pinned]:
    """Return the requirements of a lock, in its order; one with several versions comes several times."""
    blocks: list[list[str]] = []
    for line in text.splitlines():
        if line[:1].strip() and not line.startswith(("#", "-")):
            blocks.append([line])
        elif blocks and line.strip():
            blocks[-1].append(line)
    found = []
    for block in blocks:
        match = _PINNED.match(block[0])
        if match is None:
            raise ValueError(f"{block[0]!r} is no pinned requirement")
        kept = [line for line in block if not line.lstrip().startswith("#")]
        found.append(
            Pinned(normalised(match["name"]), match["version"], "\n".join(kept), tuple(_wanted_by(block)))
        )
    return found


def _wanted_by(block: list[str]) -> Iterator[str]:
    for line in block[1:]:
        words = line.strip().removeprefix("#").strip()
        if line.strip().startswith("#") and (name := words.removeprefix("via").strip()):
            yield name


def runtime(lock: list[Pinned], project: str, also: frozenset[str] = frozenset()) -> list[Pinned]:
    """Return what of a project's lock its program needs, without what only its development does.

    Args:
        lock: with the comments that say who needs each package.
        project: the project's name; `NAME (pyproject.toml)` needs what the package depends on,
            `NAME (pyproject.toml:program)` what the program does, and `NAME (pyproject.toml:dev)` what only
            developers do.
        also: names of others that are needed.
    """
    needed = {f"{project} (pyproject.toml)", f"{project} (pyproject.toml:program)", *also}
    chosen = set(also)
    while True:
        more = {pin.name for pin in lock if pin.name not in chosen and needed & set(pin.wanted_by)}
        if not more:
            return [pin for pin in lock if pin.name in chosen]
        chosen |= more
        needed |= more


def read_freeze(path: Path) -> dict[str, str]:
    """Return the versions in the output of `pip freeze` (or `pip list --format=freeze`), by name.

    Raises:
        InputError: there is no such file, or it holds no NAME==VERSION.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        lines, found = [], str(error)
    else:
        found = "no NAME==VERSION in it"
    have = {}
    for line in lines:
        if match := _PINNED.fullmatch(line.partition(";")[0].strip()):
            have[normalised(match["name"])] = match["version"]
    if not have:
        raise refuse(
            f"--present {path}",
            found,
            allowed="what `python -m pip freeze` prints on the machine that the bundle is for",
            fix="write it there: python3 -m pip freeze > FILE",
        )
    return have


def split_present(lock: Iterable[Pinned], have: dict[str, str]) -> tuple[list[Pinned], list[Pinned]]:
    """Return what has to be packed, and what the target has in the locked version."""
    packed: list[Pinned] = []
    present: list[Pinned] = []
    for pin in lock:
        there = pin.name in have and same_version(pin.version, have[pin.name])
        (present if there else packed).append(pin)
    return packed, present


def another_python(folder: Path) -> str:
    """Return the other Python that a folder of packages is of, by its path (`python3.8`); else nothing."""
    own = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return next((part for part in folder.parts if re.fullmatch(r"python3\.\d+", part) and part != own), "")


def installed(folder: Path) -> dict[str, str]:
    """Return the versions of the packages in a folder of packages, by name."""
    found = importlib.metadata.distributions(path=[str(folder)])
    return {normalised(name): it.version for it in found if (name := it.metadata["Name"])}
