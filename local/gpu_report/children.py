"""Programs that the report runs: each is bounded, its output is kept, and none outlives the report."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

#: Stands in the environment of servers that the report starts: a killed report's are found by it.
MARK = "MODELCAR_GPU_REPORT"
#: Seconds that a program has to end by itself: Pulumi and vLLM tidy up.
GRACE = 20.0
#: What stops the report, or a step of it.
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
#: Characters of an output that are told.
TOLD = 2000


class Failed(Exception):
    """A program did not end as it should, or something is not as it should be; the message says what."""


@dataclass(frozen=True)
class Done:
    """A program that is over. seconds: that it took; said: all that it wrote."""

    status: int
    seconds: float
    said: str


class Children:
    """Starts programs and keeps what they say in a folder, one file for each."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        logs.mkdir(parents=True, exist_ok=True)

    def run(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        folder: Path,
        env: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> Done:
        """Run a program to its end; it is stopped where this is interrupted.

        Args:
            name: of the file that its output goes to.
            command: the program and its arguments.
            folder: to run it in.
            env: its environment; this process's where None.
            check: whether another status than 0 is an error.

        Raises:
            Failed: it ended with another status than 0; the message has its last words.
        """
        began = time.monotonic()
        with self.background(name, command, folder=folder, env=env) as process:
            status = process.wait()
        done = Done(status, time.monotonic() - began, self.said(name))
        if check and status:
            shown = " ".join(str(part) for part in command)
            raise Failed(f"{shown[-200:]}: exit status {status}\n{last_words(done.said)}")
        return done

    @contextmanager
    def background(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        folder: Path,
        env: Mapping[str, str] | None = None,
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a program meanwhile; it is stopped at the end."""
        process = None
        try:  # Ctrl-C may come as soon as it has started
            with (self.logs / f"{name}.log").open("wb") as log, signals_held_back():
                process = subprocess.Popen(
                    [str(part) for part in command],
                    cwd=folder,
                    env=dict(os.environ if env is None else env),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C reaches it through us, and all that it starts with it
                )
            yield process
        finally:
            if process is not None:
                stop(process)

    @contextmanager
    def service(
        self, name: str, command: Sequence[str | Path], *, folder: Path, env: Mapping[str, str]
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a server meanwhile, and keep each line that it says with its time (RFC 3339)."""
        process = reader = None
        try:
            with signals_held_back():
                process = subprocess.Popen(
                    [str(part) for part in command],
                    cwd=folder,
                    env={**env, MARK: str(self.logs)},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                reader = threading.Thread(target=self._keep, args=(name, process), daemon=True)
                reader.start()
            yield process
        finally:
            if process is not None:
                stop(process)
            if reader is not None:
                reader.join(GRACE)

    def _keep(self, name: str, process: subprocess.Popen[bytes]) -> None:
        with (self.logs / f"{name}.log").open("wb") as log:
            for line in process.stdout or ():
                stamp = datetime.now(UTC).isoformat().replace("+00:00", "Z")
                log.write(stamp.encode() + b" " + line)
                log.flush()

    def said(self, name: str) -> str:
        """Return what a program has said so far."""
        try:
            return (self.logs / f"{name}.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def end_leftovers(self) -> list[str]:
        """Kill servers of a report that was killed, and return their names."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == str(self.logs):
                    process.kill()
                    found.append(process.name())
        return found


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Let what stops the report wait until the block has ended: it starts what is to be stopped then."""
    came: list[int] = []
    here = threading.current_thread() is threading.main_thread()
    # What is ignored, or ends this process, goes on to the program as it is.
    stopping = [number for number in STOPPING if here and callable(signal.getsignal(number))]
    former = [signal.signal(number, lambda number, _: came.append(number)) for number in stopping]
    try:
        yield
    finally:
        for number, handler in zip(stopping, former, strict=True):
            signal.signal(number, handler)
        for one in came:
            signal.raise_signal(one)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a program and all of its session: first as Ctrl-C does, so that it tidies up, then by force."""
    try:
        if process.poll() is None:
            for number in (signal.SIGINT, signal.SIGTERM):
                _signal(process, number)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE)
                    break
    finally:  # whatever interrupts this
        _signal(process, signal.SIGKILL)  # also what its own end left behind
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def last_words(said: str, characters: int = TOLD) -> str:
    """Return the end of an output, in whole lines."""
    text = said.strip()
    return text if len(text) <= characters else "…" + text[-characters:].partition("\n")[2]
