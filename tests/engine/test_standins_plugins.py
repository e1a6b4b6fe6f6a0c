"""Policy packs and providers under the stand-in language host, over gRPC as the engine starts them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, cast

import grpc
import psutil
import pytest
from google.protobuf import empty_pb2
from pulumi.runtime.proto import analyzer_pb2_grpc, language_pb2

from local.standins.language_host import LanguageHost
from local.standins.plugin import EngineLog
from policy.pack import policies
from policy.rules import RULES
from policy.rules.unseen import UNKNOWN_VALUES
from tests.engine.test_standins_language_host import Host, host

__all__ = ["host"]  # the fixture
PACK = Path(__file__).resolve().parents[2] / "policy"


def request(folder: Path, kind: str = "analyzer") -> language_pb2.RunPluginRequest:
    info = language_pb2.ProgramInfo(
        root_directory=str(folder), program_directory=str(folder), entry_point="."
    )
    environment = [f"{key}={value}" for key, value in os.environ.items()]
    return language_pb2.RunPluginRequest(pwd=str(folder), kind=kind, info=info, args=["x:1"], env=environment)


def start(host: Host, wanted: language_pb2.RunPluginRequest) -> Any:
    """Start a plugin; the answer is an iterator of its output, which can be cancelled."""
    return host.stub.RunPlugin(wanted, timeout=60)


def plugins(host: Host) -> list[psutil.Process]:
    """Return the processes of plugins below the host."""
    return [
        child
        for child in psutil.Process(host.process.pid).children(recursive=True)
        if "plugin_runner.py" in " ".join(child.cmdline())
    ]


def test_the_pack_runs_until_the_engine_ends_the_call(host: Host) -> None:
    call = start(host, request(PACK))
    port = int(next(call).stdout)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        info = analyzer_pb2_grpc.AnalyzerStub(channel).GetAnalyzerInfo(empty_pb2.Empty(), timeout=30)
    assert info.name == "modelcar"
    assert [policy.name for policy in info.policies] == [
        policy.name for policy in policies([*RULES, UNKNOWN_VALUES])
    ]
    running = plugins(host)
    assert len(running) == 1
    call.cancel()
    assert psutil.wait_procs(running, timeout=10)[1] == []


def test_a_pack_does_not_outlive_a_host_that_was_killed(host: Host) -> None:
    call = start(host, request(PACK))
    assert next(call).stdout
    running = plugins(host)
    host.process.send_signal(signal.SIGKILL)
    assert psutil.wait_procs(running, timeout=10)[1] == []


def test_what_a_pack_prints_and_its_exit_code_arrive(host: Host, tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    pack.mkdir()
    (pack / "__main__.py").write_text(
        "import sys\nprint('out', sys.argv[1:])\nprint('bad', file=sys.stderr)\nsys.exit(3)\n"
    )
    responses = list(start(host, request(pack)))
    assert b"".join(r.stdout for r in responses) == b"out ['x:1']\n"
    assert b"".join(r.stderr for r in responses) == b"bad\n"
    assert responses[-1].exitcode == 3


def test_an_environment_without_the_sdk_is_named_with_the_fix(host: Host, tmp_path: Path) -> None:
    (tmp_path / "pulumi_policy.py").write_text("raise ImportError('No module named pulumi_policy')\n")
    wanted = request(PACK)
    wanted.env.append(f"PYTHONPATH={tmp_path}")
    responses = list(start(host, wanted))
    assert b"fix: run `make env`" in b"".join(r.stderr for r in responses)
    assert responses[-1].exitcode == 1


def test_a_provider_runs_until_the_engine_ends_the_call(host: Host, tmp_path: Path) -> None:
    code = "import sys, time\nprint(4242, flush=True)\ntime.sleep(600)\n"
    (tmp_path / "__main__.py").write_text(code)
    call = start(host, request(tmp_path, "resource"))
    assert next(call).stdout == b"4242\n"
    running = plugins(host)
    call.cancel()
    assert psutil.wait_procs(running, timeout=10)[1] == []


def test_no_provider_is_left_where_a_call_ends_between_two_answers(tmp_path: Path) -> None:
    """gRPC drops the answers at the one that it was sending; nothing asks for the next."""

    class Call:
        def add_callback(self, end: object) -> bool:
            return True

    (tmp_path / "__main__.py").write_text("import time\nprint(4242, flush=True)\ntime.sleep(600)\n")
    answers: Any = LanguageHost("", EngineLog("")).RunPlugin(
        request(tmp_path, "resource"), cast("Any", Call())
    )
    assert next(answers).stdout == b"4242\n"
    (running,) = [
        child
        for child in psutil.Process().children()
        if "plugin_runner.py" in " ".join(child.cmdline()) and str(tmp_path) in child.cmdline()
    ]
    answers.close()
    assert not running.is_running()  # a zombie is running


def test_plugins_of_other_kinds_are_refused(host: Host) -> None:
    with pytest.raises(grpc.RpcError) as error:
        list(start(host, request(PACK, "converter")))
    assert "'converter'" in str(error.value)
