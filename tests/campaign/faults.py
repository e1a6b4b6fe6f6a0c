"""The faults: what is done, and what puts it right again where that is not the program's own affair."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass

import psutil

from tests.campaign.front import Rule
from tests.campaign.world import BYSTANDER, SUBJECT, Run, World, until

#: Operations that faults are tried in; "rest" is none.
UP, UPDATE, DESTROY, REST = "up", "update", "destroy", "rest"
RUNNING = (UP, UPDATE, DESTROY)


class Missed(Exception):
    """There was no occasion for the fault at that moment; says nothing about the program."""


#: Does it, and yields while it lasts; the run is None at rest.
Fault = Callable[[World, Run | None], AbstractContextManager[None]]


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    name: for the report. at: the operations that it is tried in. fault: does it. touches_pod: whether served
    pods may feel it. during: it begins before the operation and lasts to its end, so it has no moment.
    repair: arguments of the next `up` which Pulumi's documentation names for this. spoils_state: the state
    cannot be read before the recovery.
    """

    name: str
    at: tuple[str, ...]
    fault: Fault
    touches_pod: bool = False
    during: bool = False
    repair: tuple[str, ...] = ()
    spoils_state: bool = False


# --- processes --------------------------------------------------------------------------------------

#: What tells the processes of a run from each other, in their command lines.
ENGINE, LANGUAGE_HOST, PROGRAM = "engine", "language host", "program"
KUBERNETES, DOCKER_BUILD = "kubernetes provider", "docker-build provider"
#: The program's are first: its arguments name the language host too.
MARKS = {
    PROGRAM: ("program_runner", "language-python-exec"),
    LANGUAGE_HOST: ("language-python",),
    KUBERNETES: ("resource-kubernetes",),
    DOCKER_BUILD: ("resource-docker-build",),
}


def _role(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        command = " ".join(process.cmdline())
        for role, marks in MARKS.items():
            if any(mark in command for mark in marks):
                return role
    return ""


def _member(run: Run, role: str) -> psutil.Process | None:
    return next((process for process in run.family()[1:] if _role(process) == role), None)


def _kill_of_run(role: str) -> Fault:
    @contextmanager
    def fault(_: World, run: Run | None) -> Iterator[None]:
        if run is None:
            raise Missed("nothing runs")
        target: psutil.Process | None = run.process if role == ENGINE else None
        if target is None:
            until(lambda: run.over() or _member(run, role) is not None, 60)
            target = _member(run, role)
        if target is None or run.over():
            raise Missed(f"no {role} at that moment")
        target.send_signal(signal.SIGKILL)
        yield

    return fault


def _kill_service(name: str) -> Fault:
    @contextmanager
    def fault(world: World, _: Run | None) -> Iterator[None]:
        process = world.process(name)
        if process is None:
            raise Missed(f"{name} does not run")
        process.send_signal(signal.SIGKILL)
        yield

    return fault


def _frozen(name: str, seconds: float) -> Fault:
    @contextmanager
    def fault(world: World, _: Run | None) -> Iterator[None]:
        with world.frozen(name):
            time.sleep(seconds)  # the fault itself: nobody answers for so long
        yield

    return fault


# --- the registry -----------------------------------------------------------------------------------


def _registry(*rules: Rule) -> Fault:
    @contextmanager
    def fault(world: World, _: Run | None) -> Iterator[None]:
        world.rules.set(*rules)
        try:
            yield
        finally:
            used = world.rules.used()
            world.rules.set()
        if not used:
            raise Missed("the registry was not asked")

    return fault


@contextmanager
def _disk_full(world: World, _: Run | None) -> Iterator[None]:
    """Let the registry's disk take 64 KiB more and no byte above: a small tmpfs over where uploads begin."""
    uploads = world.instance.state / f"registry/docker/registry/v2/repositories/models/{SUBJECT}/_uploads"
    uploads.mkdir(parents=True, exist_ok=True)
    store = world.process("registry-store")
    if store is None:
        raise Missed("the registry does not run")
    inside = ["nsenter", "--mount", "--pid", "--target", str(store.pid)]
    subprocess.run([*inside, "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(uploads)], check=True)
    try:
        yield
    finally:
        subprocess.run([*inside, "umount", "-l", str(uploads)], check=True)


# --- the API server ---------------------------------------------------------------------------------


#: An annotation that KServe keeps from pods; any other one would make new pods each time it is written
#: (0.19, pkg/constants, ServiceAnnotationDisallowedList).
NOT_HANDED_ON = "kubectl.kubernetes.io/last-applied-configuration"


@contextmanager
def _conflict(world: World, run: Run | None) -> Iterator[None]:
    """Write to every object of the subject, all the time, as an eager controller does."""
    if run is None:
        raise Missed("nothing runs")
    number = 0
    while not run.over():
        number += 1
        with suppress(Exception):
            world.kubectl(
                "-n", SUBJECT, "annotate", "--overwrite",
                "inferenceservices,servingruntimes,serviceaccounts", "--all", f"{NOT_HANDED_ON}={number}",
            )  # fmt: skip
    yield
    with suppress(Exception):
        world.kubectl(
            "-n",
            SUBJECT,
            "annotate",
            "inferenceservices,servingruntimes,serviceaccounts",
            "--all",
            f"{NOT_HANDED_ON}-",
        )


@contextmanager
def _deleted(world: World, _: Run | None) -> Iterator[None]:
    world.kubectl("-n", SUBJECT, "delete", "inferenceservice", "--all", "--wait")
    yield


# --- the state --------------------------------------------------------------------------------------


@contextmanager
def _state_truncated(world: World, _: Run | None) -> Iterator[None]:
    file = world.state_file()
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    yield


@contextmanager
def _state_empty(world: World, _: Run | None) -> Iterator[None]:
    world.state_file().write_bytes(b"")
    yield


@contextmanager
def _state_old(world: World, _: Run | None) -> Iterator[None]:
    """Put back the state as it was before the last `up`, as who restores a backup does."""
    file = world.state_file()
    backups = world.backend.glob(f".pulumi/backups/*/{SUBJECT}/{SUBJECT}.*.json")
    file.write_bytes(max(backups, key=lambda path: path.stat().st_mtime_ns).read_bytes())
    yield


@contextmanager
def _state_locked(world: World, _: Run | None) -> Iterator[None]:
    """Leave a lock of a process that is gone."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    folder = world.backend / f".pulumi/locks/organization/{world.state_file().parent.name}/{SUBJECT}"
    folder.mkdir(parents=True, exist_ok=True)
    lock = {"pid": gone.pid, "username": "root", "hostname": socket.gethostname(),
            "timestamp": "2026-01-01T00:00:00Z"}  # fmt: skip
    (folder / "left-over.json").write_text(json.dumps(lock))
    yield


# --- more ------------------------------------------------------------------------------------------


@contextmanager
def _second_up(world: World, run: Run | None) -> Iterator[None]:
    """Start another `up` of the same stack; one of the two has to say that it is locked, and do nothing."""
    if run is None or run.over():
        raise Missed("the first has ended")
    second = world.begin(*run.arguments)
    statuses = [second.wait(), run.wait()]
    if all(statuses):
        raise AssertionError(f"neither of two runs succeeded: {second.said()}\n{run.said()}")
    loser = second if statuses[0] else run
    if any(statuses) and "locked" not in loser.said():
        raise AssertionError(f"the second run failed without a word of the lock: {loser.said()}")
    yield


@contextmanager
def _reboot(world: World, _: Run | None) -> Iterator[None]:
    """Stop the platform as a machine is, and start it again; what was served has to be served again."""

    def served() -> bool:
        return all(
            any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
            for name in (SUBJECT, BYSTANDER)
            for pod in world.objects(name, "pods")
        )

    world.reboot()
    if not until(served, 180, 0.5):
        raise AssertionError("after the node came back, its pods were not ready in 180 s")
    yield


def _codes() -> Iterator[Kind]:
    for status in (401, 403, 404, 429, 500, 503):
        yield Kind(f"registry answers {status}", (UP, UPDATE), _registry(Rule(status=status)), during=True)
        if status >= 429:
            few = Rule(path="/blobs/", status=status, times=3)
            yield Kind(f"registry answers {status} three times", (UP, UPDATE), _registry(few), during=True)


def _cut(times: int | None) -> Fault:
    return _registry(Rule(path="/blobs/", methods=("PUT", "PATCH"), cut=200_000, times=times))


KINDS: tuple[Kind, ...] = (
    Kind("kill engine", RUNNING, _kill_of_run(ENGINE)),
    Kind("kill language host", RUNNING, _kill_of_run(LANGUAGE_HOST)),
    Kind("kill program", (UP, UPDATE), _kill_of_run(PROGRAM)),
    Kind("kill kubernetes provider", RUNNING, _kill_of_run(KUBERNETES)),
    Kind("kill docker-build provider", (UP, UPDATE), _kill_of_run(DOCKER_BUILD)),
    *(
        Kind(f"kill {name}", (*RUNNING, REST), _kill_service(name))
        for name in (
            "buildkitd",
            "registry-store",
            "etcd",
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kserve",
            "kubelet",
            "containerd",
        )
    ),
    Kind("API server stands still for 20 s", (*RUNNING, REST), _frozen("kube-apiserver", 20)),
    Kind("KServe stands still for 10 s", (UP, UPDATE), _frozen("kserve", 10)),
    Kind("objects are written to all the time", (UP, UPDATE), _conflict),
    Kind("service deleted by hand", (REST,), _deleted, repair=("--refresh",)),
    *_codes(),
    Kind("registry is slow", (UP, UPDATE), _registry(Rule(path="/blobs/", rate=1_000_000)), during=True),
    Kind("registry cuts an upload once", (UP, UPDATE), _cut(1), during=True),
    Kind("registry cuts all uploads", (UP, UPDATE), _cut(None), during=True),
    Kind("registry's disk is full", (UP, UPDATE), _disk_full, during=True),
    Kind("state is locked by a dead run", (REST,), _state_locked),
    Kind("state is truncated", (REST,), _state_truncated, spoils_state=True),
    Kind("state is empty", (REST,), _state_empty, spoils_state=True),
    Kind("state is old", (REST,), _state_old, repair=("--refresh",)),
    Kind("two runs at once", RUNNING, _second_up),
    Kind("node reboots", (REST,), _reboot, touches_pod=True),
)  # fmt: skip
