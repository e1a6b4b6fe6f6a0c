"""What `make coldstart` measures, and that nothing of it stays."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.conftest import Platform

SIZES = (0.02, 0.04)


@pytest.mark.extended
def test_a_first_start_pulls_and_a_warm_one_does_not(platform: Platform) -> None:
    folder = platform.checkout.folder
    before = sorted(path.name for path in (folder / ".local").iterdir())
    arguments = f"--sizes {','.join(map(str, SIZES))} --reader-only --json"
    said = platform.checkout.make("coldstart", ARGS=arguments).stdout
    runs = json.loads(said)
    assert [(run["gb"], run["state"]) for run in runs] == [
        (size, state) for size in SIZES for state in ("first", "warm")
    ]
    for run in runs:
        assert (run["pull"] + run["unpack"] > 0) == (run["state"] == "first")
        assert run["total"] >= run["start"] + run["load"] + run["probe"] > 0
    assert sorted(path.name for path in (folder / ".local").iterdir()) == before


def test_the_phases_of_a_stacks_own_start_are_told(platform: Platform) -> None:
    checkout = platform.checkout
    checkout.make("up")
    command = [".venv/bin/python", "-m", "local", "operate", "coldstart", "local", "--json"]
    told = subprocess.run(
        command, cwd=checkout.folder, env=checkout.environment, capture_output=True, text=True, check=True
    )
    found = json.loads(told.stdout[told.stdout.index("{") :])
    assert found["pod"].startswith("qwen-oci-predictor-")
    assert found["total"] > 0
    assert found["link"] is not None
