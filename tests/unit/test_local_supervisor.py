"""The platform's first process: what must not end it, as all others end with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.plan import KERNEL_SETTINGS
from local.supervisor import NOTES, Supervisor, cover_kernel_settings, hold
from tests.conftest import PROJECT


@pytest.fixture
def host_proc() -> Iterator[int]:
    number = os.open("/proc", os.O_DIRECTORY)
    yield number
    os.close(number)


def supervisor(folder: Path, host_proc: int) -> Supervisor:
    for name in ("logs", "pids"):
        (folder / name).mkdir()
    argv = [sys.executable, "-c", "import time; time.sleep(60)"]
    service: dict[str, Any] = {"name": "a", "argv": argv, "ready": {}, "after": [], "env": {}}
    plan = {"state": str(folder), "logs": str(folder / "logs"), "pids": str(folder / "pids")}
    return Supervisor({**plan, "services": [service]}, host_proc)


def test_a_full_disk_does_not_end_it_and_the_state_is_written_later(tmp_path: Path, host_proc: int) -> None:
    made = supervisor(tmp_path, host_proc)
    in_the_way = tmp_path / "status.json.part"
    in_the_way.mkdir()  # as with a full disk, nothing can be written
    made._write_status()
    in_the_way.rmdir()
    made._write_status()
    assert json.loads((tmp_path / "status.json").read_text())["a"]["state"] == "waiting"


def test_a_service_whose_pid_cannot_be_written_is_tried_again(tmp_path: Path, host_proc: int) -> None:
    made = supervisor(tmp_path, host_proc)
    (tmp_path / "pids").rmdir()
    [service] = made.services
    made._advance(service)
    assert service.state == "backoff"
    assert "cannot start" in str(service.last_exit)
    (tmp_path / "pids").mkdir()
    service.retry_at = time.monotonic()
    try:
        made._advance(service)
        assert service.state == "starting"
        assert (tmp_path / "pids" / "a.pid").read_text() == str(service.process.pid if service.process else 0)
    finally:
        made._stop_all()
    assert service.state == "stopped"


def test_all_starts_are_counted_also_where_the_back_off_begins_anew(tmp_path: Path, host_proc: int) -> None:
    made = supervisor(tmp_path, host_proc)
    [service] = made.services
    try:
        for _ in range(3):
            service.state, service.retry_at = "backoff", 0.0
            made._advance(service)
            service.started_at -= 61  # it ran well
            assert service.process
            service.process.kill()
            service.process.wait()
            made._reap()
    finally:
        made._stop_all()
    made._write_status()
    told = json.loads((tmp_path / "status.json").read_text())["a"]
    assert (told["restarts"], told["starts"]) == (1, 3)


def test_a_second_one_is_refused_with_the_firsts_pid(tmp_path: Path) -> None:
    code = "import sys; from local.supervisor import hold; from pathlib import Path; hold(Path(sys.argv[1]))"
    again = [sys.executable, "-c", code, str(tmp_path)]
    with hold(tmp_path):
        second = subprocess.run(again, cwd=PROJECT, capture_output=True, text=True, check=False)
        assert second.returncode == 1
        assert f"another supervisor (pid {os.getpid()}) runs this platform" in second.stderr
    assert subprocess.run(again, cwd=PROJECT, check=False).returncode == 0


class Mounts:
    """What is mounted where; some of it cannot be."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refused: str = "") -> None:
        self.made: dict[str, str] = {}
        self.refused = refused
        monkeypatch.setattr("local.supervisor._mount", self)
        monkeypatch.setattr("local.supervisor.Path.mkdir", lambda *_, **__: None)

    def __call__(self, source: str, target: str, *_: Any) -> None:
        if self.refused and self.refused in target:
            raise OSError(1, f"mount {target}: not permitted")
        self.made[target] = source


def test_the_kubelet_finds_the_kernel_as_it_wants_it_and_the_machine_keeps_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kernel").mkdir()
    before = {name: Path("/proc/sys", name).read_text() for name in KERNEL_SETTINGS}
    mounts = Mounts(monkeypatch)
    cover_kernel_settings(KERNEL_SETTINGS, tmp_path)
    covered = {name: Path(mounts.made[f"/proc/sys/{name}"]).read_text().strip() for name in KERNEL_SETTINGS}
    assert covered == KERNEL_SETTINGS
    assert mounts.made["/run/proc"] == "proc", "pods with users of their own need one that nothing covers"
    assert {name: Path("/proc/sys", name).read_text() for name in KERNEL_SETTINGS} == before
    assert not (tmp_path / NOTES).exists()


def test_a_setting_that_cannot_be_covered_is_told_and_the_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kernel").mkdir()
    mounts = Mounts(monkeypatch, "panic_on_oops")
    cover_kernel_settings({**KERNEL_SETTINGS, "kernel/of_no_kernel": "1"}, tmp_path)
    assert len(mounts.made) == len(KERNEL_SETTINGS)
    [note] = (tmp_path / NOTES).read_text().splitlines()
    assert "the kubelet sets /proc/sys/kernel/panic_on_oops to 1 for the whole machine" in note
