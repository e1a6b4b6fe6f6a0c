"""make coldstart, campaign and soak have a platform each while they run: nobody else takes it down."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from local import __main__ as command
from local import cold_start, platform, slots, stack
from local.alone import unless_held
from local.instance import CAMPAIGN, COLD_START, OF_THEIR_OWN, PROJECT, Instance, load, only_run, run_lock
from modelcar.errors import InputError
from tests.campaign import __main__ as campaign
from tests.campaign import soak

#: A command that has a platform of its own, and something that it started and that outlives it.
RUN = """
import subprocess, sys
from local.instance import only_run
with only_run(sys.argv[1]):
    left = subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    print(left.pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    # A short path: the platform's sockets have room for 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="mc-"))
    monkeypatch.setenv("MODELCAR_STATE", str(folder))
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.setattr(slots, "CLAIMS", tmp_path / "claims")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def downed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the platforms that were taken down."""
    names: list[str] = []
    monkeypatch.setattr(platform, "down", lambda instance, _: names.append(instance.name))
    monkeypatch.setattr(stack, "stop_orphans", lambda _: [])
    return names


@contextmanager
def running(name: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    left = process.stdout.readline().strip()
    assert left.isdigit()
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
        subprocess.run(["kill", left], check=False)


@pytest.mark.parametrize("name", OF_THEIR_OWN)
@pytest.mark.parametrize("work", [command._down, command._clean], ids=["down", "clean"])
def test_the_platform_of_a_command_that_runs_is_left_alone(
    name: str, work: Any, state: Path, downed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for other in OF_THEIR_OWN:
        (state / other).mkdir(parents=True)
    local = Instance("local", 0, state / "local")
    with running(name) as process:
        assert work(local, argparse.Namespace()) == 0
        assert name not in downed
        assert (state / name).exists()
        assert f"{OF_THEIR_OWN[name]} still runs, and keeps its own platform" in capsys.readouterr().out
        [other] = set(OF_THEIR_OWN) - {name}
        assert downed == ["local", other], "what was left by one that was killed goes"
        process.kill()
        process.wait()
        work(local, argparse.Namespace())
        assert downed[-1] == name
        assert not (state / name).exists()


def test_a_second_measurement_leaves_the_first_one_alone(state: Path, downed: list[str]) -> None:
    tools: Any = None
    with running(COLD_START), pytest.raises(InputError, match=r"(?s)coldstart: in use.*fix: wait until"):
        cold_start.measure(tools, print)
    assert downed == []


def test_a_second_campaign_or_soak_leaves_the_first_one_alone(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def world(_: object) -> None:
        raise AssertionError("the platform of the first one")

    for module in (campaign, soak):
        monkeypatch.setattr(module, "World", world)
        monkeypatch.setattr(module, "stop_on_sigterm", lambda: None)
    with running(CAMPAIGN):
        for module, arguments in ((campaign, ["--examples", "0"]), (soak, [])):
            monkeypatch.setattr(sys, "argv", ["x", *arguments])
            assert module.main() == 1
            assert "platform campaign: in use by a command that still runs" in capsys.readouterr().err


def test_a_lock_is_free_again_when_its_block_ends(state: Path) -> None:
    with only_run(COLD_START), unless_held(run_lock(COLD_START)) as mine:
        assert not mine
    with unless_held(run_lock(COLD_START)) as mine:
        assert mine
    assert load(COLD_START).state == state / COLD_START


def deployed(state: Path, *types: str) -> Path:
    """Write the local stack's state with resources of these types."""
    file = state / "pulumi/.pulumi/stacks/modelcar/local.json"
    file.parent.mkdir(parents=True)
    resources = [{"type": one} for one in ("pulumi:pulumi:Stack", "pulumi:providers:kubernetes", *types)]
    file.write_text(json.dumps({"version": 3, "checkpoint": {"latest": {"resources": resources}}}))
    return file


OWN = {"registry": "localhost:5001/models", "kubeContext": "mine"}
SERVICE = "kubernetes:serving.kserve.io/v1beta1:InferenceService"


@pytest.mark.parametrize("elsewhere", ["", "s3://states"])
@pytest.mark.usefixtures("downed")
def test_clean_leaves_a_state_that_alone_knows_what_is_on_the_users_cluster(
    elsewhere: str, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", elsewhere)
    monkeypatch.setattr("local.up.file_settings", lambda: OWN)
    file = deployed(state, SERVICE)
    told = '(?s)has 1 resources.*fix: make pulumi ARGS="destroy --stack local"'
    with pytest.raises(InputError, match=told):
        command._clean(load("local"), argparse.Namespace())
    assert file.exists()


@pytest.mark.parametrize(("own", "types"), [(OWN, []), ({}, [SERVICE])], ids=["destroyed", "embedded"])
@pytest.mark.usefixtures("downed")
def test_clean_removes_a_state_that_nobody_needs(
    own: dict[str, str],
    types: list[str],
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    monkeypatch.setattr("local.up.file_settings", lambda: own)
    file = deployed(state, *types)
    assert command._clean(load("local"), argparse.Namespace()) == 0
    assert not file.exists()
    assert "and the stack's state" in capsys.readouterr().out


@pytest.mark.usefixtures("downed", "state")
def test_clean_says_which_backend_keeps_the_state(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://states")
    assert command._clean(load("local"), argparse.Namespace()) == 0
    said = capsys.readouterr().out
    assert "the stack's state stays in s3://states: pulumi stack rm --stack local" in said
    assert "and the stack's state;" not in said


@pytest.mark.usefixtures("downed")
def test_clean_does_not_say_that_it_removed_what_is_still_there(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed(state)
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    with pytest.raises(InputError, match=r"(?s)pulumi: cannot be removed.*sudo make clean"):
        command._clean(load("local"), argparse.Namespace())
