"""Ctrl-C while Pulumi works: it ends by itself, with its lock released, before its caller does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from local.instance import PROJECT

#: In Pulumi's place: at Ctrl-C it takes its time to end what is under way, and releases its lock then.
PULUMI = """#!{python}
import pathlib, signal, sys, time

def cancel(*_):
    time.sleep(0.7)  # longer than the quarter of a second that subprocess.run waits
    pathlib.Path("lock").unlink()
    sys.exit(255)

signal.signal(signal.SIGINT, cancel)
pathlib.Path("lock").touch()
while True:
    time.sleep(0.05)
"""
#: Calls all that run Pulumi, one after the other; in a process of its own, as Ctrl-C is for a process group.
CALLERS = """
import os
from pathlib import Path
from types import SimpleNamespace
from unittest import mock
from bench import kernels, many
from local import __main__ as command, preview, runbook, stack
from local.instance import Instance
from local.tools import Toolbox

here = Path.cwd()
tools = Toolbox({"pulumi": here / "pulumi"}, os.environ["PATH"], here)
instance = Instance("local", 0, here)
stack.PROJECT = preview.PROJECT = runbook.PROJECT = kernels.PROJECT = here
callers = {
    "make deploy": lambda: preview.run(tools, here, dict(os.environ), "up"),
    "its first command": lambda: preview.run(tools, here, dict(os.environ), "stack", quiet=True),
    "make rehearse": lambda: preview.told(tools, here, dict(os.environ), "up"),
    "make up": lambda: stack.pulumi(instance, tools, "up"),
    "make pulumi": lambda: command._pulumi(instance, SimpleNamespace(arguments=["up"])),
    "make runbook": lambda: runbook._Walk(instance, tools)._run(str(here / "pulumi"), "up"),
    "bench.kernels": lambda: kernels._pulumi("up"),
    "bench.many": lambda: many.Bench.pulumi(SimpleNamespace(folder=here, variables=None), here, "up"),
}
with mock.patch.object(command, "collect", return_value=tools):
    for name, call in callers.items():
        try:
            call()
            print(name, "went on")
        except KeyboardInterrupt:
            print(name, "ended, and", "killed Pulumi" if (here / "lock").exists() else "so had Pulumi")
        (here / "lock").unlink(missing_ok=True)
"""
CALLS = 8


def test_pulumi_ends_by_itself_after_ctrl_c(tmp_path: Path) -> None:
    program = tmp_path / "pulumi"
    program.write_text(PULUMI.replace("{python}", sys.executable))
    program.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    state = str(tmp_path / "state")
    variables = {**os.environ, "PYTHONPATH": str(PROJECT), "PATH": path, "MODELCAR_STATE": state}
    with subprocess.Popen(
        [sys.executable, "-c", CALLERS],
        cwd=tmp_path,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as running:
        for _ in range(CALLS):
            _await(running, tmp_path / "lock", there=True)
            os.killpg(running.pid, signal.SIGINT)
            _await(running, tmp_path / "lock", there=False)
        said, _ = running.communicate(timeout=60)
    ends = [line for line in said.splitlines() if " ended, and " in line or "went on" in line]
    assert len(ends) == CALLS, said
    assert all(line.endswith("so had Pulumi") for line in ends), said


def _await(running: subprocess.Popen[str], lock: Path, *, there: bool) -> None:
    """Wait until Pulumi has its lock, or until that is gone."""
    deadline = time.monotonic() + 60
    while lock.exists() is not there:
        if running.poll() is not None:
            break
        assert time.monotonic() < deadline
        time.sleep(0.02)
