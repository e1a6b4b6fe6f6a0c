"""The device plugin's own tests, which are in Go, and what it says of bad input."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from local.instance import PROJECT
from local.tool_list import DEVICE_PLUGIN
from local.tools import find_tool

MODULE = PROJECT / "local" / "tools" / "kubernetes"


@pytest.mark.skipif(not shutil.which("go"), reason="Go builds and tests it")
@pytest.mark.parametrize("command", ["vet", "test"])
def test_its_own_tests_pass(command: str) -> None:
    result = subprocess.run(
        ["go", command, "-mod=readonly", "./device-plugin"],
        cwd=MODULE,
        env={**os.environ, "CGO_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_what_it_cannot_use_is_refused_in_words(tmp_path: Path) -> None:
    program = find_tool(DEVICE_PLUGIN, print)

    def said(*arguments: str) -> str:
        result = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        assert result.returncode == 2
        assert "panic" not in result.stderr
        return result.stderr

    assert "usage: modelcar-device-plugin --config FILE" in said()
    empty = tmp_path / "empty.json"
    empty.touch()
    for file, reason in ((empty, "EOF"), (tmp_path / "none.json", "no such file")):
        line = said("--config", str(file))
        assert reason in line
        assert "allowed:" in line
        assert "fix: run `make up` again" in line
