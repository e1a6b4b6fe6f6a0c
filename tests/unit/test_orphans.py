"""Plugins whose engine was killed are stopped; nothing else that runs in the same shell is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import stack
from local.instance import PROJECT, Instance

STANDINS = str(PROJECT / "local" / "standins")


@pytest.mark.parametrize(
    ("command", "plugin"),
    [
        (["/x/pulumi-resource-kubernetes", "127.0.0.1:1"], True),
        (["pulumi-language-python", "127.0.0.1:1"], True),
        ([sys.executable, STANDINS, "resource-gcp", "127.0.0.1:1"], True),
        ([sys.executable, STANDINS, "language-python"], True),
        (["vim", "local/standins/provider.py"], False),
        (["less", f"{STANDINS}/bin/pulumi-resource-gcp"], False),
        (["tail", "-f", "pulumi-resource-kubernetes.log"], False),
        (["ls", STANDINS, "resource-gcp.txt"], False),
        (["python", "-m", "pytest", "tests/unit/test_standins_values.py"], False),
        ([sys.executable, f"{STANDINS}/knative_ingress.py"], False),
        ([], False),
    ],
)
def test_a_plugin_is_told_by_its_program(command: list[str], plugin: bool) -> None:
    assert stack.is_plugin(command) is plugin


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    return Instance("local", 0, tmp_path / "state")


@pytest.fixture
def started(instance: Instance) -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def test_an_orphan_ends_and_an_editor_goes_on(
    tmp_path: Path,
    instance: Instance,
    started: list[subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stack, "PLUGIN_SECONDS", 0.5)
    environment = {**os.environ, stack.RUN_MARK: str(instance.state)}
    said = tmp_path / "said"
    commands = {
        "pulumi-resource-gcp": f"lambda *_: (open({str(said)!r}, 'w').write('in order'), sys.exit())",
        "pulumi-resource-deaf": "signal.SIG_IGN",
        "vim": "signal.SIG_DFL",
    }
    for name, handler in commands.items():
        code = f"import signal, sys, time; signal.signal(signal.SIGTERM, {handler}); print(flush=True)"
        process = subprocess.Popen(
            [f"/usr/bin/{name}", "-c", f"{code}; time.sleep(60)", f"{STANDINS}/provider.py"],
            executable=sys.executable,
            env=environment,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout
        process.stdout.readline()
    assert len(stack.stop_orphans(instance)) == 2
    *orphans, vim = started
    for orphan in orphans:
        orphan.wait(5)
    assert said.read_text() == "in order"
    assert vim.poll() is None
