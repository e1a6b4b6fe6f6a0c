"""Sizes and progress, as people read them."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelcar import progress

PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (4_124_027, "3.9 MiB"),
        (2**30, "1.0 GiB"),
        (140 * 10**9, "130.4 GiB"),
        (2**40, "1.0 TiB"),
        (2**53, "8192.0 TiB"),
    ],
)
def test_sizes(size: int, shown: str) -> None:
    assert progress.amount(size) == shown


def test_a_line_at_most_every_ten_seconds_with_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("modelcar.progress.time.monotonic", lambda: now)
    said: list[str] = []
    count = progress.lines("fetch m", 100 * 2**20, said.append)
    for second in range(1, 26):
        now = 100.0 + second
        count(2**20)
    assert said == [
        "fetch m: 10.0 MiB of 100.0 MiB (10 %), 1.0 MiB/s, 1 min 30 s left",
        "fetch m: 20.0 MiB of 100.0 MiB (20 %), 1.0 MiB/s, 1 min 20 s left",
    ]


def test_what_is_read_again_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("modelcar.progress.time.monotonic", lambda: now)
    said: list[str] = []
    count = progress.lines("fetch m", 4096, said.append)
    count(3072)
    count(-3072)
    now = 10.0
    count(1024)
    assert said == ["fetch m: 1.0 KiB of 4.0 KiB (25 %), 102 B/s, 30 s left"]


def test_without_a_terminal_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar("lock m", 10) as count:
        count(10)
    assert capsys.readouterr() == ("", "")


def test_share_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("modelcar.progress.time.monotonic", lambda: now)
    said: list[str] = []
    count = progress.lines("lock m", 8 * 2**30, said.append)
    now = 20.0
    count(2 * 2**30)
    assert said == ["lock m: 2.0 GiB of 8.0 GiB (25 %), 102.4 MiB/s, 1 min 0 s left"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert progress.duration(seconds) == shown


class Terminal(io.StringIO):
    """What is written to a terminal of 80 columns, or to something else."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@dataclass
class Clock:
    """Seconds, as the test sets them; `working` looks at its line when the test says."""

    now: float = 0.0

    def look(self, shown: progress.Shown, *, at: float) -> None:
        self.now = at
        shown.look()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("modelcar.progress.time.monotonic", lambda: made.now)
    monkeypatch.setattr("modelcar.progress.TICK", 3600.0)  # the thread does not look by itself
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("CI", raising=False)
    return made


def test_on_a_terminal_one_line_changes_and_goes_at_the_end(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Terminal(terminal=True)
    monkeypatch.setattr("sys.stderr", stream)
    with progress.working("building kubelet", 24) as shown:
        clock.look(shown, at=1.0)
        assert stream.getvalue() == "", "what is over at once needs no progress"
        clock.look(shown, at=6.0)
        clock.look(shown, at=7.0)
    assert stream.getvalue() == (
        "\rbuilding kubelet: 6 s of about 24 s\x1b[K\rbuilding kubelet: 7 s of about 24 s\x1b[K\r\x1b[K"
    )


def test_a_line_on_a_terminal_is_no_longer_than_the_terminal(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Terminal(terminal=True)
    monkeypatch.setattr("sys.stderr", stream)
    with progress.working("x" * 200) as shown:
        clock.look(shown, at=6.0)
        assert stream.getvalue() == "\r" + "x" * 79 + "\x1b[K"


def test_other_lines_stand_above_the_one_that_changes(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal(terminal=True)
    monkeypatch.setattr("sys.stderr", stream)
    with progress.working("waiting") as shown:
        clock.look(shown, at=6.0)
        progress.say("found", stream)
        clock.look(shown, at=7.0)
        with progress.working("inside") as inner:
            clock.look(shown, at=11.0)
            clock.look(inner, at=12.0)
    assert stream.getvalue() == (
        "\rwaiting: 6 s\x1b[K\r\x1b[Kfound\n\rwaiting: 7 s\x1b[K\r\x1b[K\rinside: 5 s\x1b[K\r\x1b[K"
    )


@pytest.mark.parametrize("terminal", [False, True], ids=["no terminal", "CI"])
def test_elsewhere_a_line_at_most_every_ten_seconds(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    stream = Terminal(terminal=terminal)
    monkeypatch.setattr("sys.stderr", stream)
    if terminal:
        monkeypatch.setenv("CI", "true")
    with progress.bar("push m", 2000) as count, progress.working("uploading") as shown:
        count(500)
        for second in range(1, 26):
            clock.look(shown, at=second)
    assert stream.getvalue() == "uploading: 10 s\nuploading: 20 s\n"


def test_for_a_program_nothing_is_shown(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal(terminal=False)
    monkeypatch.setattr("sys.stderr", stream)
    with progress.silent(when=True), progress.working("uploading") as shown:
        clock.look(shown, at=30.0)
    assert stream.getvalue() == ""
    with progress.silent(when=False), progress.working("uploading") as shown:
        clock.look(shown, at=60.0)
    assert stream.getvalue() == "uploading: 30 s\n"


CHILD = """
import sys
from modelcar import progress
progress.FIRST, progress.EVERY, progress.TICK = 0.0, 0.01, 0.01
with progress.bar("lock m", 4096) as count:
    count(1024)
    sys.stdin.readline()
print("locked")
"""


def test_a_real_terminal_shows_it_and_has_nothing_of_it_left() -> None:
    ours, theirs = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key != "CI"} | {"TERM": "xterm"}
    command = [sys.executable, "-c", CHILD]
    child = subprocess.Popen(
        command, cwd=PROJECT, env=environment, stdin=subprocess.PIPE, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    seen = b""
    while b"lock m: 1.0 KiB of 4.0 KiB (25 %)" not in seen:  # ends with an error where the child ends
        seen += os.read(ours, 4096)
    assert seen.startswith(b"\r")
    assert b"\n" not in seen
    child.communicate(b"\n", timeout=30)
    rest = b""
    with suppress(OSError):  # Linux' way to say that the other end is closed
        while piece := os.read(ours, 4096):
            rest += piece
    os.close(ours)
    assert child.returncode == 0
    assert rest.endswith(b"\r\x1b[Klocked\r\n")


def test_through_a_pipe_there_are_whole_lines() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stderr is not None
        line = child.stderr.readline()
        out, _ = child.communicate("\n", timeout=30)
    assert line.startswith("lock m: 1.0 KiB of 4.0 KiB (25 %)")
    assert "\r" not in line
    assert out == "locked\n"
