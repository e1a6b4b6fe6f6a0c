"""uv, which makes Python environments, and which Pulumi's own Python language host runs by its name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from local.instance import cache_root
from modelcar.errors import refuse

#: Stands in for uv where the environments came out of a bundle (local/bundle/no-uv).
NO_UV = "no-uv"
#: The oldest that the language host takes (pulumi/pulumi: sdk/python/toolchain/uv.go).
OLDEST = "0.4.26"


def find() -> Path | None:
    """Return uv: the one that `make` says (UV), else the one on PATH, else the one that `make` installed."""
    if named := os.environ.get("UV") or shutil.which("uv"):
        return Path(named)
    installed = cache_root() / "uv" / "bin" / "uv"
    return installed if installed.exists() else None


def beside_language_host() -> dict[str, Path]:
    """Return uv by its name where PATH lacks it, for Pulumi's own Python language host.

    The host runs `uv sync` before each program whose Pulumi.yaml says `toolchain: uv`.

    Raises:
        InputError: there is no uv.
    """
    if shutil.which("uv"):
        return {}
    found = find()
    if found and found.name != NO_UV and found.exists():
        return {"uv": found.absolute()}
    raise refuse(
        "uv",
        "not on PATH, and Pulumi's own pulumi-language-python, which is, runs it before each program",
        allowed=f"uv {OLDEST} or newer, and a package index that it reaches",
        fix="run the command by `make`, which installs uv; in a checkout out of a bundle take pulumi and "
        "pulumi-language-python off PATH: the bundle has a Pulumi that needs neither uv nor an index",
    )
