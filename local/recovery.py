"""What a run that was killed, or a disk that was full, leaves of a stack: put right, and said.

Every step is Pulumi's own, or a copy of a file that Pulumi's backend for files has made; it is named, so that
who runs Pulumi by hand can do the same (docs/troubleshooting.md).
"""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from modelcar.errors import refuse

#: Seconds by which the system's start of a process may be off; a clock that was set shifts it.
CLOCK_ERROR = 2.0
#: Runs of a stack that can be looked at, and gone back to, on the local stack.
KEPT_RUNS = 50


def recover(pulumi: Callable[..., str], backend: Path, stack: str) -> list[str]:
    """Put right what stands in the way of the next `pulumi up`, and return a line for each thing done.

    Locks of live processes are left alone.

    Args:
        pulumi: runs `pulumi` with these arguments and returns what it printed.
        backend: folder of the backend for files (`file://…`); one that is not there has nothing to mend.
        stack: the stack's name.

    Raises:
        InputError: the state cannot be read, and there is no copy of it that can.
        Exception: whatever `pulumi` raises.
    """
    done = [*_released(pulumi, backend, stack), *_unlabelled(backend, stack)]
    restored = _restored(backend, stack)
    state = json.loads(pulumi("stack", "export", "--stack", stack))
    if restored:
        # What was made after that copy is not in it; what is in it may be gone.
        why = "compared it with what is there"
    elif (state.get("deployment") or {}).get("pending_operations"):
        # What was being created is applied again by the next `up`, whether it came about or not.
        why = "cleared operations that a run did not see the end of"
    else:
        return done
    pulumi("refresh", "--yes", "--skip-preview", "--clear-pending-creates", "--stack", stack)
    return [*done, *restored, f"{why}: pulumi refresh --clear-pending-creates"]


def forget_old(backend: Path, stack: str, kept: int = KEPT_RUNS) -> None:
    """Delete what a backend for files keeps of runs before the last ones: Pulumi itself never does.

    Args:
        backend, stack: as of `recover`; for a backend that is this machine's own.
        kept: runs of which backups and history stay.
    """
    for folder, pattern in (("backups", f"{stack}.*.json"), ("history", f"{stack}-*.history.json")):
        for own in backend.glob(f".pulumi/{folder}/*/{stack}"):
            runs = sorted(own.glob(pattern), key=_moment, reverse=True)
            for path in runs[kept:]:
                for part in own.glob(f"{path.name.split('.history.')[0]}*"):
                    part.unlink()


def resources(backend: Path, stack: str) -> int:
    """Return how many resources a stack's state has, but for the stack itself and its providers."""
    found = 0
    for path in backend.glob(f".pulumi/stacks/*/{stack}.json"):
        latest = ((_parsed(path) or {}).get("checkpoint") or {}).get("latest") or {}
        types = [str(one.get("type")) for one in latest.get("resources") or [] if isinstance(one, dict)]
        found += sum(not kind.startswith(("pulumi:pulumi:", "pulumi:providers:")) for kind in types)
    return found


def _released(pulumi: Callable[..., str], backend: Path, stack: str) -> list[str]:
    """Release locks whose run is gone."""
    done = []
    for path in backend.glob(f".pulumi/locks/organization/*/{stack}/*.json"):
        with suppress(FileNotFoundError):  # released a moment ago
            lock = _parsed(path)
            if lock is None:  # the disk was full
                path.unlink()
                done.append(f"removed a lock that says nothing: {path.name}")
            elif lock["hostname"] == socket.gethostname() and not _holds(lock):
                pulumi("cancel", "--yes", "--stack", stack)
                done.append(f"released the lock of a run that was killed (pid {lock['pid']}): pulumi cancel")
    return done


def running(backend: Path, stack: str) -> int | None:
    """Return the pid of a run of Pulumi on this machine that holds a stack; None where there is none.

    Args:
        backend, stack: as of `recover`.
    """
    for path in backend.glob(f".pulumi/locks/organization/*/{stack}/*.json"):
        with suppress(FileNotFoundError):  # released a moment ago
            lock = _parsed(path)
            if lock and lock.get("hostname") == socket.gethostname() and _holds(lock):
                return int(lock["pid"])
    return None


def _holds(lock: dict[str, Any]) -> bool:
    """Tell whether the run that made a lock goes on: after a power loss, its pid may be another process's."""
    try:
        process = psutil.Process(lock["pid"])
        if "pulumi" not in process.name() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        made = datetime.fromisoformat(str(lock.get("timestamp"))).timestamp()
    except psutil.NoSuchProcess:
        return False
    except ValueError:  # no moment in it
        return True
    return process.create_time() <= made + CLOCK_ERROR


def _unlabelled(backend: Path, stack: str) -> list[str]:
    """Remove attributes that are half written: Pulumi reads a state without them, and not with these."""
    done = []
    for path in backend.glob(f".pulumi/stacks/*/{stack}.json*.attrs"):
        if _parsed(path) is None:
            path.unlink()
            done.append(f"removed attributes that a killed run left half written: {path.name}")
    return done


def _restored(backend: Path, stack: str) -> list[str]:
    """Put the newest readable copy in the place of a state that cannot be read."""
    done = []
    for path in backend.glob(f".pulumi/stacks/*/{stack}.json"):
        if _parsed(path) is not None:
            continue
        project = path.parent.name
        former = backend.glob(f".pulumi/backups/{project}/{stack}/{stack}.*.json")
        copies = [path.with_name(f"{path.name}.bak"), *sorted(former, key=_moment, reverse=True)]
        good = next((copy for copy in copies if copy.exists() and _parsed(copy) is not None), None)
        if good is None:
            raise refuse(
                f"state of stack {stack}",
                f"{path} cannot be read, and neither can a copy of it",
                allowed="a state that Pulumi wrote whole, or one of its backups",
                fix="restore the file from a backup of your own; or start anew: "
                f"pulumi stack rm --force {stack}, pulumi stack init {stack}, then import what is there",
            )
        kept = path.with_name(f"{path.name}.unreadable")
        path.rename(kept)
        whole = path.with_name(f"{path.name}.part")  # a disk that is still full leaves no half of it
        shutil.copy(good, whole)
        whole.replace(path)
        done.append(
            f"the state could not be read (kept as {kept.name}); its older copy {good.name} is in its place"
        )
    return done


def _moment(file: Path) -> int:
    """Return when a file was written, as its name says: STACK.MOMENT.json, STACK-MOMENT.history.json."""
    name = file.name.removesuffix(".json").removesuffix(".history")
    moment = name.replace(".", "-").rpartition("-")[2]
    return int(moment) if moment.isdigit() else 0


def _parsed(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        return None
    return found if isinstance(found, dict) and found else None
