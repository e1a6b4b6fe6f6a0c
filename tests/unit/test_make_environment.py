"""`make` and a Python environment whose Python went, as with an upgrade of the system."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from local.instance import PROJECT

#: Makes an environment as uv does, and writes down that it did.
UV = """#!/bin/sh
echo "$1 $2" >> told
if [ "$1" = venv ]; then ln -sf /bin/true .venv/bin/python; fi
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose environment was made of its lock."""
    shutil.copy(PROJECT / "Makefile", tmp_path)
    (tmp_path / "requirements.lock").touch()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/.locked").touch()
    (tmp_path / ".venv/bin/python").symlink_to("/bin/true")
    uv = tmp_path / "path" / "uv"
    uv.parent.mkdir()
    uv.write_text(UV)
    uv.chmod(0o755)
    return tmp_path


def make_env(checkout: Path) -> tuple[list[str], subprocess.CompletedProcess[str]]:
    """Run `make env`; return what uv was asked, and how it ended."""
    told = checkout / "told"
    told.unlink(missing_ok=True)
    environment = {"PATH": f"{checkout / 'path'}:{os.environ['PATH']}"}
    command = ["make", "-s", "env"]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    return told.read_text().splitlines() if told.exists() else [], done


def test_an_environment_whose_python_went_is_made_again(checkout: Path) -> None:
    assert make_env(checkout)[0] == []
    python = checkout / ".venv/bin/python"
    python.unlink()
    python.symlink_to("/usr/bin/python3.of-the-former-release")
    assert make_env(checkout)[0] == ["venv --quiet", "pip sync"]
    assert make_env(checkout)[0] == []


def test_one_out_of_a_bundle_names_the_command_that_makes_it_again(checkout: Path) -> None:
    (checkout / ".venv/bundle.mk").write_text("BUNDLED := /media/bundle\n")
    assert make_env(checkout)[1].returncode == 0
    python = checkout / ".venv/bin/python"
    python.unlink()
    python.symlink_to("/usr/bin/python3.of-the-former-release")
    told, done = make_env(checkout)
    assert (told, done.returncode) == ([], 2)
    assert "fix: make up BUNDLE='/media/bundle'" in done.stderr
