"""The platform's first process: what must not end it, as all others end with it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.supervisor import Supervisor


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
