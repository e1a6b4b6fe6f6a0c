"""One run on the local stack at a time: others wait, and its platform stays."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from local import __main__ as command
from local import stack
from local.instance import Instance, run_lock
from modelcar.errors import InputError
from tests.unit.test_recovery import lock, lock_of


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODELCAR_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def pulumi(tmp_path: Path, state: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program called as Pulumi's is, which holds the local stack."""
    program = shutil.copy(str(shutil.which("sleep")), tmp_path / "pulumi")
    with subprocess.Popen([program, "60"]) as process:
        lock(state / "pulumi", lock_of(process.pid, psutil.Process(process.pid).create_time() + 0.5))
        yield process
        process.kill()


@pytest.mark.parametrize("work", [command._down, command._clean], ids=["down", "clean"])
def test_the_platform_of_a_run_is_neither_stopped_nor_removed(
    work: Any, state: Path, pulumi: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def note(name: str) -> list[str]:
        done.append(name)
        return []

    for name in ("platform.down", "stack.stop_orphans", "kind.stop", "kind.remove"):
        monkeypatch.setattr(f"local.{name}", lambda *_, name=name: note(name))
    instance = Instance("local", 0, state / "local")
    told = rf"(?s)stack local: a run works on it \(pid {pulumi.pid}\).*kill -INT {pulumi.pid}"
    with pytest.raises(InputError, match=told):
        work(instance, argparse.Namespace())
    assert done == []
    pulumi.kill()
    pulumi.wait()
    assert work(instance, argparse.Namespace()) == 0
    assert "platform.down" in done


@pytest.mark.usefixtures("state")
def test_a_run_between_two_commands_of_pulumis_is_one_too() -> None:
    with stack.only_run(print), pytest.raises(InputError, match=rf"\(pid {os.getpid()}\)"):
        stack.require_no_run()
    stack.require_no_run()


def test_a_run_waits_for_another_and_for_pulumi_by_hand(pulumi: subprocess.Popen[bytes]) -> None:
    said: list[str] = []

    def run() -> None:
        with stack.only_run(said.append):
            said.append("runs")

    def until(words: str) -> None:
        deadline = time.monotonic() + 20
        while not any(words in line for line in said):
            assert time.monotonic() < deadline, said
            time.sleep(0.02)

    with ThreadPoolExecutor(2) as others:
        first = others.submit(run)
        until(f"waiting for pulumi (pid {pulumi.pid})")
        second = others.submit(run)
        until(f"waiting for another process that holds {run_lock('pulumi')}")
        assert "runs" not in said
        pulumi.kill()
        pulumi.wait()
        first.result(20)
        second.result(20)
    assert said.count("runs") == 2
