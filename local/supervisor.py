"""PID 1 of a platform's namespaces: starts its processes in order, keeps them up, and stops them.

It runs as the first process of its own pid, mount and network namespaces. When it goes, in whatever
way, the kernel ends every process and removes every mount and interface in there: nothing can be
left behind. The host writes `plan.json` and reads `status.json`, the logs and the pid files.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

#: How often readiness is looked at while something starts, and at rest, in seconds.
STARTING_INTERVAL = 0.1
RESTING_INTERVAL = 1.0
STOP_GRACE_SECONDS = 10.0
#: A process that has crashed is started again after 1, 2, 4 … seconds, at most this many.
LONGEST_BACKOFF_SECONDS = 30.0

#: A log that is longer, in bytes, gives its older part to `NAME.log.1`, in place of the part before.
LONGEST_LOG = 16 * 2**20

#: In the platform's folder: what the user has to know of this start, a line each.
NOTES = "notes"

_MS_BIND, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 4096, 2, 4, 8


@dataclass
class Service:
    """One supervised process. `ready` is a check: {"tcp": [host, port]}, {"unix": path} or {"url": …}.

    `after` names services that must be ready first, or `file:PATH` for a step done from the host.
    """

    name: str
    argv: list[str]
    after: list[str]
    ready: dict[str, Any]
    env: dict[str, str] = field(default_factory=dict)

    state: str = "waiting"  # waiting, starting, ready, backoff, stopped
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0  # in a row; what the back-off goes by
    starts: int = 0  # in all
    retry_at: float = 0.0
    started_at: float = 0.0
    ready_seconds: float = 0.0
    last_exit: str = ""


def bound(logs: Path, longest: int = LONGEST_LOG) -> None:
    """Let no log take more than twice so many bytes: whoever writes it appends, so it can be cut in place."""
    for log in logs.glob("*.log"):
        if log.stat().st_size > longest:
            with suppress(OSError):  # a disk that is full: then the older part goes
                shutil.copyfile(log, log.with_name(f"{log.name}.1"))
            os.truncate(log, 0)


def check(ready: dict[str, Any]) -> bool:
    """Run one readiness check; False where the process does not answer yet."""
    try:
        if "tcp" in ready:
            host, port = ready["tcp"]
            socket.create_connection((host, port), timeout=1).close()
        elif "unix" in ready:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1)
                connection.connect(ready["unix"])
        else:
            context = ssl.create_default_context(cafile=ready["ca"]) if "ca" in ready else None
            if context and "cert" in ready:
                context.load_cert_chain(ready["cert"], ready["key"])
            # No proxy leads into the platform, nor to this machine itself.
            directly = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)]
            with urllib.request.build_opener(*directly).open(ready["url"], timeout=2) as response:
                return bool(response.status == 200)
    except (OSError, urllib.error.URLError, ssl.SSLError):
        return False
    return True


class Supervisor:
    """Runs the plan until it is told to stop (SIGTERM or SIGINT)."""

    def __init__(self, plan: dict[str, Any], host_proc: int) -> None:
        """Take the plan, and a descriptor of the host's /proc for the pid files."""
        self.state_folder = Path(plan["state"])
        self.logs = Path(plan["logs"])
        self.pids = Path(plan["pids"])
        self.services = [Service(**service) for service in plan["services"]]
        self.host_proc = host_proc
        self.stopping = False
        self.written = ""

    def run(self) -> None:
        """Start everything in order, then watch over it."""
        signals = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        while not self.stopping:
            self._reap()
            bound(self.logs)
            for service in self.services:
                self._advance(service)
            self._write_status()
            settled = all(service.state == "ready" for service in self.services)
            interval = RESTING_INTERVAL if settled else STARTING_INTERVAL
            received = signal.sigtimedwait(signals, interval)
            if received and received.si_signo in {signal.SIGTERM, signal.SIGINT}:
                self.stopping = True
        self._stop_all()

    def _advance(self, service: Service) -> None:
        now = time.monotonic()
        may_start = service.state == "waiting" and all(self._done(name) for name in service.after)
        if may_start or (service.state == "backoff" and now >= service.retry_at):
            self._start(service)
        elif service.state == "starting" and check(service.ready):
            service.state = "ready"
            service.ready_seconds = now - service.started_at

    def _done(self, name: str) -> bool:
        if name.startswith("file:"):
            return Path(name.removeprefix("file:")).exists()
        return next(service for service in self.services if service.name == name).state == "ready"

    def _start(self, service: Service) -> None:
        service.starts += 1
        pid_file = self.pids / f"{service.name}.pid"

        def record_pid() -> None:
            # Runs in the child: the host's /proc shows the pid that the host knows it by.
            signal.pthread_sigmask(signal.SIG_SETMASK, set())
            os.setsid()
            pid_file.write_text(os.readlink("self", dir_fd=self.host_proc))

        with (self.logs / f"{service.name}.log").open("ab", buffering=0) as log:
            try:
                service.process = subprocess.Popen(
                    service.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **service.env},
                    cwd=self.state_folder,
                    preexec_fn=record_pid,
                )
            except (OSError, subprocess.SubprocessError) as error:  # the second: no room for the pid
                with suppress(OSError):
                    log.write(f"cannot start {service.argv[0]}: {error}\n".encode())
                self._back_off(service, f"cannot start: {error}")
                return
        service.state = "starting"
        service.started_at = time.monotonic()

    def _reap(self) -> None:
        """Collect every child that has ended: ours, and orphans that the kernel has handed to PID 1."""
        for service in self.services:
            if service.process and service.process.poll() is not None:
                code = service.process.returncode
                service.process = None
                reason = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
                self._back_off(service, reason)
        ours = {service.process.pid for service in self.services if service.process}
        while True:
            try:
                pending = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if pending is None or pending.si_pid in ours:
                return  # a service of ours: its Popen collects it on the next turn
            os.waitpid(pending.si_pid, 0)

    def _back_off(self, service: Service, reason: str) -> None:
        service.last_exit = reason
        service.restarts += 1
        # A process that ran well for a minute starts afresh with the shortest wait.
        if service.started_at and time.monotonic() - service.started_at > 60:
            service.restarts = 1
        delay = min(2.0 ** (service.restarts - 1), LONGEST_BACKOFF_SECONDS)
        service.retry_at = time.monotonic() + delay
        service.state = "backoff"
        (self.pids / f"{service.name}.pid").unlink(missing_ok=True)

    def _stop_all(self) -> None:
        """Stop in reverse order, each with a chance to close its files."""
        for service in reversed(self.services):
            process = service.process
            if process is None:
                continue
            process.terminate()
            try:
                process.wait(STOP_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            service.process = None
            service.state = "stopped"
            (self.pids / f"{service.name}.pid").unlink(missing_ok=True)
            self._write_status()

    def _write_status(self) -> None:
        status = {
            service.name: {
                "state": service.state,
                "restarts": service.restarts,
                "starts": service.starts,
                "lastExit": service.last_exit,
                "readySeconds": round(service.ready_seconds, 2),
            }
            for service in self.services
        }
        text = json.dumps(status, indent=1)
        if text != self.written:
            part = self.state_folder / "status.json.part"
            # A full disk must not end the platform with all of its pods: the next turn writes it.
            with suppress(OSError):
                part.write_text(text)
                part.rename(self.state_folder / "status.json")
                self.written = text


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()):
        number = ctypes.get_errno()
        raise OSError(number, f"mount {target}: {os.strerror(number)}")


def enter(plan: dict[str, Any]) -> int:
    """Make the namespaces fit to live in; return a file descriptor of the host's /proc.

    Folders that containerd, CNI and the kubelet write to by fixed paths are covered by private mounts, so
    that the host's own stay untouched and nothing remains of ours.
    """
    host_proc = os.open("/proc", os.O_DIRECTORY)
    (Path(plan["pids"]) / "supervisor.pid").write_text(os.readlink("self", dir_fd=host_proc))
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    _mount("tmpfs", "/run", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755")
    cover_kernel_settings(plan["kernel"], Path(plan["state"]))
    for hidden, folder in plan["covered"].items():
        Path(hidden).mkdir(parents=True, exist_ok=True)
        Path(folder).mkdir(parents=True, exist_ok=True)
        _mount(folder, hidden, "none", _MS_BIND)
    _wait_for_link()
    for command in plan["network"]:
        subprocess.run(command, check=True)
    return host_proc


def cover_kernel_settings(wanted: dict[str, str], state: Path) -> None:
    """Let the kubelet read the kernel settings that it wants, and write none of them.

    They are the whole machine's, in no namespace, and nothing would put them back. Each is covered by a file
    with the value; with another one in it the kubelet would write, to that file.

    Args:
        wanted: by path below /proc/sys.
        state: folder of the platform, for these files and for NOTES, which says what could not be covered.
    """
    notes = state / NOTES
    notes.unlink(missing_ok=True)
    # The kernel lets a pod with users of its own mount /proc only where one is wholly visible.
    whole = Path("/run/proc")
    whole.mkdir()
    _mount("proc", str(whole), "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    files = state / "kernel"
    files.mkdir(exist_ok=True)
    for name, value in wanted.items():
        setting = Path("/proc/sys") / name
        if not setting.exists():
            continue
        file = files / name.replace("/", ".")
        file.write_text(f"{value}\n")
        try:
            _mount(str(file), str(setting), "none", _MS_BIND)
        except OSError as error:
            with notes.open("a") as lines:
                lines.write(
                    f"NOTE: the kubelet sets {setting} to {value} for the whole machine, until it is started "
                    f"again: it cannot be covered ({error})\n"
                )


def hold(state: Path) -> TextIO:
    """Take the platform's folder for this process alone, until it ends; return the file that it holds.

    Two supervisors would run two etcds on the same data.

    Raises:
        SystemExit: another supervisor has it.
    """
    lock = (state / "supervisor.lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        sys.exit(f"another supervisor (pid {lock.read().strip()}) runs this platform; `make down` stops it")
    lock.truncate(0)
    # /proc is the host's still, and so the pid is as the host counts it.
    lock.write(str(Path("/proc/self").readlink()))
    lock.flush()
    return lock


def _wait_for_link() -> None:
    """The host moves our end of the link in here after it has seen our pid."""
    deadline = time.monotonic() + 30
    while "eth0" not in Path("/proc/net/dev").read_text():
        if time.monotonic() > deadline:
            raise TimeoutError("the host did not hand over the network link within 30 s")
        signal.sigtimedwait(set(), 0.02)


def main() -> None:
    """Entry point: `python -m local.supervisor PLAN`."""
    plan = json.loads(Path(sys.argv[1]).read_text())
    with hold(Path(plan["state"])):  # what it starts does not get the file
        host_proc = enter(plan)
        Supervisor(plan, host_proc).run()


if __name__ == "__main__":
    main()
