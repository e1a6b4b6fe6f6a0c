"""The package as others install it: built from this checkout, in an environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import PROJECT


def install(folder: Path) -> Path:
    """Build the wheel, install it into a new environment, and return that.

    What it depends on comes from the checkout's own environment, which has the same versions.
    """
    uv = os.environ.get("UV") or shutil.which("uv")
    assert uv, "make test says where uv is"
    wheels = folder / "wheels"
    run(uv, "build", "--quiet", "--wheel", "--out-dir", wheels, PROJECT)
    [wheel] = wheels.glob("*.whl")
    environment = folder / "environment"
    run(uv, "venv", "--quiet", "--python", sys.executable, environment)
    python = environment / "bin/python"
    run(uv, "pip", "install", "--quiet", "--no-deps", "--python", python, wheel)
    [packages] = environment.glob("lib/python*/site-packages")
    [shared] = (PROJECT / ".venv").glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(f"{shared}\n")
    return environment


def run(*command: str | Path) -> str:
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
