"""The version of this project. It is written in one place: `version` of pyproject.toml.

A checkout reads that file; the installed package reads its own metadata, which was built from it.
"""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

#: Name of the package on an index.
DISTRIBUTION = "modelcar-kserve"

_PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
_PYTHON = re.compile(r"(?P<base>\d+\.\d+\.\d+)(?:(?P<kind>a|b|rc|\.dev)(?P<number>\d+))?")
_SEMVER_KIND = {"a": "alpha", "b": "beta", "rc": "rc", ".dev": "dev"}


def version() -> str:
    """Return the version, as Python writes it: 0.3.0, 0.3.0rc1, 0.3.0.dev0.

    Raises:
        importlib.metadata.PackageNotFoundError: this is neither a checkout nor an installed package.
    """
    if _PYPROJECT.is_file():  # never inside of the package
        return str(tomllib.loads(_PYPROJECT.read_text())["project"]["version"])
    return importlib.metadata.version(DISTRIBUTION)


def semver(python: str | None = None) -> str:
    """Return the version as SemVer, which Pulumi and Git tags use: 0.3.0, 0.3.0-rc.1, 0.3.0-dev.0.

    Args:
        python: a version as Python writes it; this project's by default.

    Raises:
        ValueError: it has no such form, for example because it has four numbers.
    """
    text = python or version()
    found = _PYTHON.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no version of the form 0.3.0, 0.3.0rc1 or 0.3.0.dev0")
    if not found["kind"]:
        return found["base"]
    return f"{found['base']}-{_SEMVER_KIND[found['kind']]}.{found['number']}"
