"""What a killed run or a full disk leaves of a stack's state, and how it is put right."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from local.recovery import forget_old, recover
from modelcar.errors import InputError

WHOLE = json.dumps({"version": 3, "checkpoint": {"latest": {"resources": ["then"]}}})
NOW = json.dumps({"version": 3, "checkpoint": {"latest": {"resources": ["then", "now"]}}})


class Pulumi:
    """Keeps what it was asked to do, and reads the state as Pulumi does."""

    def __init__(self, backend: Path) -> None:
        self.stack = backend / ".pulumi/stacks/modelcar/local.json"
        self.stack.parent.mkdir(parents=True)
        self.stack.write_text(NOW)
        self.asked: list[tuple[str, ...]] = []
        self.pending: list[str] = []

    def __call__(self, *arguments: str) -> str:
        self.asked.append(arguments)
        if arguments[:2] == ("stack", "export"):
            json.loads(self.stack.read_text())
            return json.dumps({"deployment": {"pending_operations": self.pending}})
        return ""

    def backup(self, moment: int, content: str) -> None:
        folder = self.stack.parent.parent.parent / "backups/modelcar/local"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"local.{moment}.json").write_text(content)


@pytest.fixture
def pulumi(tmp_path: Path) -> Pulumi:
    return Pulumi(tmp_path)


def lock(backend: Path, content: str) -> Path:
    folder = backend / ".pulumi/locks/organization/modelcar/local"
    folder.mkdir(parents=True)
    (folder / "some.json").write_text(content)
    return folder / "some.json"


def gone() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_nothing_is_done_where_all_is_well(pulumi: Pulumi, tmp_path: Path) -> None:
    assert recover(pulumi, tmp_path, "local") == []
    assert pulumi.asked == [("stack", "export", "--stack", "local")]


def test_pending_operations_are_cleared(pulumi: Pulumi, tmp_path: Path) -> None:
    pulumi.pending = ["creating"]
    [line] = recover(pulumi, tmp_path, "local")
    assert "pulumi refresh --clear-pending-creates" in line
    assert "--clear-pending-creates" in pulumi.asked[-1]


@pytest.mark.parametrize("content", [NOW[: len(NOW) // 2], "", "[]", "\x00" * 100])
def test_an_unreadable_state_gives_way_to_its_newest_copy(
    pulumi: Pulumi, tmp_path: Path, content: str
) -> None:
    pulumi.stack.write_text(content)
    pulumi.backup(100, json.dumps({"version": 3, "checkpoint": {"latest": {"resources": ["long ago"]}}}))
    pulumi.backup(200, WHOLE)
    pulumi.backup(300, WHOLE[:20])  # of the same full disk
    done = recover(pulumi, tmp_path, "local")
    assert pulumi.stack.read_text() == WHOLE
    assert pulumi.stack.with_name("local.json.unreadable").read_text() == content
    assert "local.200.json" in done[0]
    assert "pulumi refresh" in done[1], "what was made after the copy is not in it"


def test_the_copy_of_the_last_write_comes_first(pulumi: Pulumi, tmp_path: Path) -> None:
    pulumi.stack.write_text("")
    pulumi.stack.with_name("local.json.bak").write_text(NOW)
    pulumi.backup(200, WHOLE)
    assert "local.json.bak" in recover(pulumi, tmp_path, "local")[0]
    assert pulumi.stack.read_text() == NOW


def test_a_state_without_any_readable_copy_is_told(pulumi: Pulumi, tmp_path: Path) -> None:
    pulumi.stack.write_text("{")
    pulumi.backup(200, "{")
    with pytest.raises(InputError, match=r"(?s)cannot be read.*fix: restore the file.*pulumi stack init"):
        recover(pulumi, tmp_path, "local")
    assert pulumi.stack.read_text() == "{", "nothing is taken away"


@pytest.mark.parametrize("content", ["", '{"user.cache'])
def test_attributes_that_are_half_written_go(pulumi: Pulumi, tmp_path: Path, content: str) -> None:
    for name in ("local.json.attrs", "local.json.bak.attrs", "other.json.attrs"):
        pulumi.stack.with_name(name).write_text(content)
    lines = recover(pulumi, tmp_path, "local")
    assert sorted(line.rpartition(" ")[2] for line in lines) == ["local.json.attrs", "local.json.bak.attrs"]
    assert [path.name for path in pulumi.stack.parent.glob("*.attrs")] == ["other.json.attrs"]
    pulumi.stack.with_name("local.json.attrs").write_text('{"user.cache_control": ""}')
    assert recover(pulumi, tmp_path, "local") == []


def test_other_stacks_are_left_alone(pulumi: Pulumi, tmp_path: Path) -> None:
    other = pulumi.stack.with_name("dev.json")
    other.write_text("{")
    assert recover(pulumi, tmp_path, "local") == []
    assert other.read_text() == "{"


@pytest.fixture
def other_run(tmp_path: Path) -> Iterator[psutil.Process]:
    """A process that is called as Pulumi's command is."""
    program = shutil.copy(str(shutil.which("sleep")), tmp_path / "pulumi")
    with subprocess.Popen([program, "60"]) as process:
        yield psutil.Process(process.pid)
        process.kill()


def lock_of(pid: int, moment: float) -> str:
    """A lock as Pulumi writes it, to the nanosecond."""
    timestamp = f"{datetime.fromtimestamp(moment, UTC).isoformat(timespec='microseconds')[:-6]}123Z"
    return json.dumps({"pid": pid, "hostname": socket.gethostname(), "timestamp": timestamp})


def released(pulumi: Pulumi) -> bool:
    return ("cancel", "--yes", "--stack", "local") in pulumi.asked


def test_a_running_pulumis_lock_is_left(pulumi: Pulumi, tmp_path: Path, other_run: psutil.Process) -> None:
    path = lock(tmp_path, lock_of(other_run.pid, other_run.create_time() + 0.5))
    assert recover(pulumi, tmp_path, "local") == []
    without = {key: value for key, value in json.loads(path.read_text()).items() if key != "timestamp"}
    path.write_text(json.dumps(without))
    assert recover(pulumi, tmp_path, "local") == []
    assert not released(pulumi)


def test_a_dead_runs_lock_is_released(pulumi: Pulumi, tmp_path: Path) -> None:
    pid = gone()
    lock(tmp_path, lock_of(pid, time.time()))
    assert recover(pulumi, tmp_path, "local") == [
        f"released the lock of a run that was killed (pid {pid}): pulumi cancel"
    ]
    assert released(pulumi)


def test_after_a_power_loss_another_program_with_the_old_pid_holds_nothing(
    pulumi: Pulumi, tmp_path: Path
) -> None:
    lock(tmp_path, lock_of(os.getpid(), time.time()))
    assert len(recover(pulumi, tmp_path, "local")) == 1
    assert released(pulumi)


def test_after_a_power_loss_a_later_pulumi_with_the_old_pid_holds_nothing(
    pulumi: Pulumi, tmp_path: Path, other_run: psutil.Process
) -> None:
    lock(tmp_path, lock_of(other_run.pid, other_run.create_time() - 3600))
    assert len(recover(pulumi, tmp_path, "local")) == 1
    assert released(pulumi)


def test_another_machines_lock_is_left(pulumi: Pulumi, tmp_path: Path) -> None:
    lock(tmp_path, json.dumps({"pid": gone(), "hostname": "another"}))
    assert recover(pulumi, tmp_path, "local") == []


def test_a_lock_of_a_full_disk_says_nothing_and_goes(pulumi: Pulumi, tmp_path: Path) -> None:
    path = lock(tmp_path, "")
    [line] = recover(pulumi, tmp_path, "local")
    assert "a lock that says nothing" in line
    assert not path.exists()


def test_what_pulumi_keeps_of_old_runs_goes(pulumi: Pulumi, tmp_path: Path) -> None:
    history = tmp_path / ".pulumi/history/modelcar/local"
    history.mkdir(parents=True)
    others = history.parent / "other"
    others.mkdir()
    for moment in range(100, 106):
        pulumi.backup(moment, NOW)
        for kind in ("history", "checkpoint"):
            (history / f"local-{moment}.{kind}.json").write_text("{}")
            (others / f"other-{moment}.{kind}.json").write_text("{}")
    forget_old(tmp_path, "local", kept=2)
    assert sorted(path.name for path in history.iterdir()) == [
        f"local-{moment}.{kind}.json" for moment in (104, 105) for kind in ("checkpoint", "history")
    ]
    backups = tmp_path / ".pulumi/backups/modelcar/local"
    assert sorted(path.name for path in backups.iterdir()) == ["local.104.json", "local.105.json"]
    assert len([*others.iterdir()]) == 12, "another stack's stay"
    assert pulumi.stack.read_text() == NOW
