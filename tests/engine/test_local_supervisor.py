"""The supervisor, run as an ordinary process: order, restarts, stopping."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local.supervisor import bound

PROJECT = Path(__file__).resolve().parents[2]

RUNNER = """
import json, os, sys
from local.supervisor import Supervisor
Supervisor(json.load(open(sys.argv[1])), os.open("/proc", os.O_DIRECTORY)).run()
"""

LISTEN = """
import os, socket, sys, time
time.sleep(float(sys.argv[2]))
open(sys.argv[3], "a").write(sys.argv[1].rsplit("/", 1)[1] + "\\n")
server = socket.socket(socket.AF_UNIX)
if os.path.exists(sys.argv[1]): os.unlink(sys.argv[1])
server.bind(sys.argv[1]); server.listen()
while True: server.accept()
"""


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come about"
        time.sleep(0.02)


class Running:
    """A supervisor with two services, the second of which waits for the first and for a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.order = folder / "order"
        listen = folder / "listen.py"
        listen.write_text(LISTEN)

        def service(name: str, delay: str, after: list[str]) -> dict[str, Any]:
            path = str(folder / f"{name}.sock")
            argv = [sys.executable, str(listen), path, delay, str(self.order)]
            return {"name": name, "argv": argv, "after": after, "ready": {"unix": path}, "env": {}}

        gate = folder / "gate"
        services = [service("second", "0", ["first", f"file:{gate}"]), service("first", "0.3", [])]
        plan = {"state": str(folder), "logs": str(folder), "pids": str(folder), "services": services}
        (folder / "plan.json").write_text(json.dumps(plan))
        command = [sys.executable, "-c", RUNNER, str(folder / "plan.json")]
        self.process = subprocess.Popen(command, cwd=PROJECT)

    def status(self, name: str) -> dict[str, Any]:
        path = self.folder / "status.json"
        found: dict[str, Any] = json.loads(path.read_text())[name] if path.exists() else {"state": ""}
        return found

    def pid(self, name: str) -> int:
        return int((self.folder / f"{name}.pid").read_text())


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path)
    yield made
    made.process.kill()
    made.process.wait()
    for pid_file in tmp_path.glob("*.pid"):
        os.kill(int(pid_file.read_text()), signal.SIGKILL)


def test_services_start_in_order_and_wait_for_the_host(running: Running) -> None:
    wait_for(lambda: running.status("first")["state"] == "ready")
    assert running.status("second")["state"] == "waiting"
    (running.folder / "gate").touch()
    wait_for(lambda: running.status("second")["state"] == "ready")
    assert running.order.read_text().split() == ["first.sock", "second.sock"]


def test_a_crashed_service_is_started_again_and_the_crash_is_told(running: Running) -> None:
    wait_for(lambda: running.status("first")["state"] == "ready")
    killed = running.pid("first")
    os.kill(killed, signal.SIGKILL)
    wait_for(
        lambda: running.status("first").get("restarts") == 1 and running.status("first")["state"] == "ready"
    )
    assert running.pid("first") != killed
    assert running.status("first")["lastExit"] == "signal SIGKILL"


def test_sigterm_stops_everything(running: Running) -> None:
    wait_for(lambda: running.status("first")["state"] == "ready")
    pid = running.pid("first")
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(20) == 0
    assert not Path(f"/proc/{pid}").exists()
    assert not list(running.folder.glob("*.pid"))


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    service = {"name": "gone", "argv": ["/no/such"], "after": [], "ready": {"unix": "/no"}, "env": {}}
    plan = {"state": str(tmp_path), "logs": str(tmp_path), "pids": str(tmp_path), "services": [service]}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    process = subprocess.Popen([sys.executable, "-c", RUNNER, str(tmp_path / "plan.json")], cwd=PROJECT)
    try:
        status = tmp_path / "status.json"
        wait_for(lambda: status.exists() and "cannot start" in status.read_text())
    finally:
        process.terminate()
        process.wait()


def test_a_long_log_is_cut_while_it_is_written(tmp_path: Path) -> None:
    log = tmp_path / "etcd.log"
    with log.open("ab") as writer:
        writer.write(b"a" * 300)
        writer.flush()
        bound(tmp_path, longest=400)
        assert log.stat().st_size == 300
        writer.write(b"b" * 200)
        writer.flush()
        bound(tmp_path, longest=400)
        writer.write(b"c" * 10)
    assert log.read_bytes() == b"c" * 10, "no hole where the older part was"
    assert (tmp_path / "etcd.log.1").read_bytes() == b"a" * 300 + b"b" * 200
