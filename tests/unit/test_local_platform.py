"""What the host asks of the platform's API server, which may have crashed a moment ago."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest

from local import __main__ as command
from local import platform
from local.instance import Instance
from modelcar.errors import InputError

REFUSED = 'Get "https://198.18.0.2:6443/openapi/v2": dial tcp 198.18.0.2:6443: connect: connection refused'


def answers(monkeypatch: pytest.MonkeyPatch, *stderr: str) -> mock.Mock:
    results = [subprocess.CompletedProcess([], int(bool(text)), "done", text) for text in stderr]
    run = mock.Mock(side_effect=results)
    monkeypatch.setattr("local.platform.subprocess.run", run)
    monkeypatch.setattr("local.platform.time.sleep", lambda _: None)
    return run


def ask(folder: Path, **more: Any) -> str:
    tools: Any = {"kubectl": "kubectl"}
    return platform.kubectl(Instance("x", 0, folder), tools, "apply", **more)


def test_an_api_server_that_comes_back_is_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = answers(monkeypatch, REFUSED, REFUSED, "")
    assert ask(tmp_path, patience=30.0) == "done"
    assert run.call_count == 3


def test_without_patience_it_is_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = answers(monkeypatch, REFUSED)
    with pytest.raises(platform.PlatformError, match="connection refused"):
        ask(tmp_path)
    assert run.call_count == 1


def test_other_errors_are_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = answers(monkeypatch, "forbidden")
    with pytest.raises(platform.PlatformError, match="forbidden"):
        ask(tmp_path, patience=30.0)
    assert run.call_count == 1


def crd(name: str, conditions: list[dict[str, str]] | None) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"conditions": conditions}}


def test_a_crd_that_has_no_conditions_yet_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """kubectl wait ends with "accessor error: <nil> is of the type <nil>" there."""
    served = [{"type": "NamesAccepted", "status": "True"}, {"type": "Established", "status": "True"}]
    asked = iter([[crd("a", None), crd("b", served)], [crd("a", served), crd("b", served)]])

    def kubectl(*arguments: Any, **_: Any) -> str:
        return json.dumps({"items": next(asked)}) if "get" in arguments else ""

    monkeypatch.setattr(platform, "kubectl", kubectl)
    for name in ("kserve.crd_files", "kserve.definitions", "netfilter.definitions"):
        monkeypatch.setattr(f"local.platform.{name}", lambda *_: [])
    platform._install_definitions(Instance("x", 0, tmp_path), mock.Mock())
    assert next(asked, None) is None, "it asked until both were served"


def test_the_node_is_waited_for_with_any_kubectl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`kubectl wait --for=create` is of 1.31; Debian 12 has 1.20."""
    asked, there = [], iter(["", "", "node/x", "", "", "serviceaccount/default"])

    def kubectl(_: Instance, __: Any, *arguments: str) -> str:
        asked.append(arguments)
        assert "--for=create" not in arguments
        return next(there) if arguments[0] == "get" or arguments[0] == "wait" else ""

    monkeypatch.setattr(platform, "kubectl", kubectl)
    monkeypatch.setattr("local.platform.time.sleep", lambda _: None)
    platform._wait_for_node(Instance("x", 0, tmp_path), mock.Mock())
    assert [arguments[0] for arguments in asked] == ["get", "get", "get", "wait", "get", "get"]


def pushes(monkeypatch: pytest.MonkeyPatch, *errors: Exception | None) -> mock.Mock:
    push = mock.Mock(side_effect=errors)
    monkeypatch.setattr(platform, "push_layout", push)
    monkeypatch.setattr("local.platform.time.sleep", lambda _: None)
    return push


def test_a_registry_that_comes_back_is_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gone = httpx.RemoteProtocolError("Server disconnected without sending a response.")
    push = pushes(monkeypatch, httpx.ConnectError("Connection refused"), gone, None)
    platform._push_tool_image(Instance("x", 0, tmp_path))
    assert push.call_count == 3


def test_a_registry_that_refuses_is_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer = httpx.Response(507, request=httpx.Request("PUT", "http://198.18.0.2:5000/v2/"))
    push = pushes(monkeypatch, httpx.HTTPStatusError("507", request=answer.request, response=answer))
    with pytest.raises(platform.PlatformError, match=r"to 198\.18\.0\.2:5000: 507"):
        platform._push_tool_image(Instance("x", 0, tmp_path))
    assert push.call_count == 1


def test_a_machine_without_a_hosts_file_is_told_what_helps(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"(?s)hosts: not there.*containerd.*fix: echo '127.0.0.1 "):
        platform.require_hosts_file(tmp_path / "hosts")
    (tmp_path / "hosts").touch()
    platform.require_hosts_file(tmp_path / "hosts")


def test_the_node_is_labelled_once_it_advertises_cards(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    node = {"status": {"allocatable": {"nvidia.com/gpu": "2"}}}
    asked: list[tuple[str, ...]] = []

    def kubectl(_: Instance, __: Any, *arguments: str, **___: Any) -> str:
        asked.append(arguments)
        return json.dumps(node)

    monkeypatch.setattr(platform, "kubectl", kubectl)
    tools: Any = {}
    platform._wait_for_gpus(Instance("x", 0, tmp_path), tools, lambda _: None)
    assert asked[0][0] == "get"
    assert asked[-1][0] == "label"
    assert asked[-1][-1] == "nvidia.com/gpu.present=true", "prePull finds the node by it"


class Platform:
    """A platform of which the test says what its supervisor wrote, and whether it runs."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.instance = Instance("x", 0, folder / "x")
        self.instance.pids.mkdir(parents=True)
        monkeypatch.setattr(platform, "supervisor", lambda _: object())
        monkeypatch.setattr("local.platform.time.sleep", lambda _: None)

    def write(self, **service: Any) -> None:
        known = {"state": "ready", "restarts": 0, "lastExit": "", "readySeconds": 1.0}
        self.instance.status_file.write_text(json.dumps({"kserve": known | service}))


@pytest.fixture
def of_a_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    return Platform(tmp_path, monkeypatch)


def test_a_process_that_crashed_often_and_is_ready_is_ready(of_a_test: Platform) -> None:
    of_a_test.write(restarts=7, starts=8)
    platform._wait_ready(of_a_test.instance, "kserve")
    of_a_test.write(restarts=7, starts=8, state="backoff", lastExit="exit status 1")
    with pytest.raises(platform.PlatformError, match=r"ended 7 times \(exit status 1\)"):
        platform._wait_ready(of_a_test.instance, "kserve")


def test_a_process_that_ran_long_is_seen_to_start_again(
    of_a_test: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor begins to count anew what it backs off by: 1 before, 1 after."""
    monkeypatch.setattr(platform, "STOP_SECONDS", 0.0)
    of_a_test.write(restarts=1, starts=2)
    with pytest.raises(platform.PlatformError, match="kserve does not end"):
        platform.restart(of_a_test.instance, "kserve")
    read, seen = platform.status, iter([2, 3])

    def status(instance: Instance) -> dict[str, dict[str, Any]]:
        of_a_test.write(restarts=1, starts=next(seen))
        return read(instance)

    monkeypatch.setattr(platform, "status", status)
    platform.restart(of_a_test.instance, "kserve")


@pytest.mark.parametrize(("told", "starts"), [({"restarts": 1, "starts": 5}, 5), ({"restarts": 1}, 2)])
def test_status_tells_all_starts(
    told: dict[str, int],
    starts: int,
    of_a_test: Platform,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    of_a_test.write(**told)
    assert command._status(of_a_test.instance, argparse.Namespace()) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("kserve")]
    assert line.split() == ["kserve", "ready", "-", "-", str(starts)]


def test_two_that_start_one_platform_at_once_start_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: list[Running] = []
    started = []

    def start(*_: Any) -> None:
        time.sleep(0.3)  # the other one looks meanwhile
        started.append(1)
        running.append(Running())

    monkeypatch.setattr(platform, "supervisor", lambda _: running[0] if running else None)
    monkeypatch.setattr(platform, "_start", start)
    for name in ("_wait_ready", "_wait_for_node", "_push_tool_image", "_register_builder"):
        monkeypatch.setattr(platform, name, lambda *_: None)
    for name in ("_install_definitions", "clean_leftovers", "_link"):
        monkeypatch.setattr(platform, name, lambda *_: None)
    monkeypatch.setattr("local.platform.direct.reach", lambda _: None)
    said: list[str] = []
    tools = mock.Mock(runs_kserve=False, netfilter=None)
    instance = Instance("x", 0, tmp_path / "x")
    with ThreadPoolExecutor(2) as both:
        for done in [both.submit(platform.up, instance, tools, said.append) for _ in range(2)]:
            done.result()
    assert started == [1]
    assert any("waiting for another process that holds" in line for line in said)


def test_a_stop_waits_for_who_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    instance, said = Instance("x", 0, tmp_path / "x"), []
    monkeypatch.setattr(platform, "_stop", lambda *_: said.append("stopped"))
    with ThreadPoolExecutor(1) as other:
        with platform.alone_with(instance, said.append):
            stopping = other.submit(platform.down, instance, said.append)
            while not said:
                time.sleep(0.01)
            assert "waiting for another process" in said[0]
        stopping.result()
    assert said[1:] == ["stopped"]


def test_a_supervisor_is_found_without_its_pid_file(tmp_path: Path) -> None:
    instance = Instance("x", 0, tmp_path)
    runs = [sys.executable, "-c", "import time; time.sleep(60)", str(tmp_path / "plan.json")]
    with subprocess.Popen(runs) as process:
        try:
            (tmp_path / "supervisor.lock").write_text(str(process.pid))
            found = platform.supervisor(instance)
            assert found
            assert found.pid == process.pid
        finally:
            process.kill()
    assert platform.supervisor(instance) is None


def test_a_builder_that_another_command_made_meanwhile_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = Instance("x", 0, tmp_path)
    file = instance.buildx_config / "instances" / instance.builder

    def create(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        file.parent.mkdir(parents=True)
        file.write_text(f"unix://{instance.buildkit_socket}")
        return subprocess.CompletedProcess([], 1, "", "existing instance for modelcar-x")

    monkeypatch.setattr("local.platform.subprocess.run", create)
    tools: Any = {"buildx": "buildx"}
    platform._register_builder(instance, tools)
    file.unlink()
    file.parent.rmdir()
    monkeypatch.setattr(
        "local.platform.subprocess.run", lambda *_, **__: subprocess.CompletedProcess([], 1, "", "full")
    )
    with pytest.raises(platform.PlatformError, match="full"):
        platform._register_builder(instance, tools)


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, str]:
    """An `ip` that writes down what it is told, and an `nsenter` that runs it as if inside."""
    told = tmp_path / "told"
    scripts = {"ip": f'echo "$*" >> {told}', "nsenter": f'shift; printf "inside: " >> {told}; exec "$@"'}
    for name, script in scripts.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return {name: str(tmp_path / "bin" / name) for name in ("ip", "unshare")} | {"told": str(told)}


class Running:
    """A supervisor that runs."""

    pid = 4711


@pytest.mark.parametrize("whole", [True, False], ids=["a pair", "no pair"])
def test_make_up_puts_the_link_of_a_running_platform_right(
    whole: bool, programs: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """NetworkManager, or a VPN that came up, may take its address, its routes or all of it."""
    instance = Instance("local", 3, tmp_path / "state")
    monkeypatch.setattr(platform, "supervisor", lambda _: Running())
    monkeypatch.setattr(platform, "link_owner", lambda _: str(instance.state) if whole else None)
    monkeypatch.setattr(platform, "_wait_ready", lambda *_: None)
    for name in ("_push_tool_image", "_register_builder", "_install_definitions", "_wait_for_node"):
        monkeypatch.setattr(platform, name, lambda *_: None)
    tools: Any = mock.MagicMock(netfilter=None, runs_kserve=False)
    tools.__getitem__.side_effect = programs.__getitem__
    platform.up(instance, tools, lambda _: None)
    told = Path(programs["told"]).read_text().splitlines()
    assert ("link add modelcar3 type veth peer name eth0 netns 4711" in told) is not whole
    assert [line for line in told if "replace" in line] == [
        "address replace 198.18.3.1/30 dev modelcar3",
        "inside: address replace 198.18.3.2/30 dev eth0",
        "route replace 10.244.3.0/24 via 198.18.3.2 dev modelcar3",
    ]


def test_another_platforms_link_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platform, "link_owner", lambda _: "/other/.local/local")
    tools: Any = {"ip": "/nonexistent", "unshare": "/nonexistent"}
    with pytest.raises(platform.PlatformError, match=r"modelcar3 is the platform's of /other.*make down"):
        platform._link(Instance("local", 3, tmp_path), tools, 1)


#: `buildx create` of a name that is there with another address.
BUILDX = r"""#!/bin/sh
name=$3; file=$BUILDX_CONFIG/instances/$name; shift 5
if [ -e "$file" ]; then echo "ERROR: existing instance for \"$name\" but no append mode" >&2; exit 1; fi
mkdir -p "$BUILDX_CONFIG/instances"
echo "{\"Name\":\"$name\",\"Nodes\":[{\"Endpoint\":\"$1\"}]}" > "$file"
"""


def test_a_checkout_that_was_moved_has_its_builder(tmp_path: Path) -> None:
    program = tmp_path / "buildx"
    program.write_text(BUILDX)
    program.chmod(0o755)
    tools: Any = {"buildx": str(program)}
    for folder in ("a", "a/b"):  # the former address begins as the new one
        (tmp_path / folder).mkdir()
    platform._register_builder(Instance("local", 0, tmp_path / "a"), tools)
    (tmp_path / "a" / "buildx").rename(tmp_path / "a/b" / "buildx")
    moved = Instance("local", 0, tmp_path / "a/b")
    for _ in range(2):
        platform._register_builder(moved, tools)
        known = json.loads((moved.buildx_config / "instances" / moved.builder).read_text())
        assert known["Nodes"] == [{"Endpoint": f"unix://{moved.buildkit_socket}"}]
