"""Progress for people: one line that changes on a terminal, a line now and then elsewhere.

It goes to standard error, so that programs can read standard output. Standard library only: a bundle is
unpacked before there is an environment.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

_UNITS = ("KiB", "MiB", "GiB", "TiB")

#: Seconds between lines where there is no terminal.
EVERY = 10.0
#: Seconds until a terminal shows anything: what is over sooner needs no progress.
FIRST = 2.0
#: Seconds between two looks at the clock.
TICK = 0.5

#: Held while something is written, so that a line of progress and other lines do not mix.
_LOCK = threading.RLock()
#: What is shown, the innermost last: that one alone is written.
_OPEN: list[Shown] = []
_silent = False


def amount(size: float) -> str:
    """Return a size in bytes for people to read."""
    if size < 1024:
        return f"{size:.0f} B"
    power = min(int(math.log2(size)) // 10, len(_UNITS))
    return f"{size / 1024**power:.1f} {_UNITS[power - 1]}"


def duration(seconds: float) -> str:
    """Return seconds for people to read: `45 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@contextmanager
def silent(when: bool) -> Iterator[None]:
    """Show no progress inside of this, where `when` is true: what is said is for a program."""
    global _silent
    before, _silent = _silent, when
    try:
        yield
    finally:
        _silent = before


class Shown:
    """A line of progress while something is done. text: returns it, given the seconds since the start."""

    def __init__(self, text: Callable[[float], str], stream: TextIO) -> None:
        self._text, self._stream = text, stream
        self._started = self._said = time.monotonic()
        self._changes = changes(stream)
        self._written = False

    def look(self) -> None:
        """Write the line where it is time to, and where nothing inside of this is shown."""
        with _LOCK:
            now = time.monotonic()
            if _silent or not _OPEN or _OPEN[-1] is not self:
                return
            if self._changes:
                if now - self._started >= FIRST:
                    width = shutil.get_terminal_size().columns - 1
                    self._write(f"\r{self._text(now - self._started)[:width]}\x1b[K")
                    self._written = True
            elif now - self._said >= EVERY:
                self._said = now
                self._write(f"{self._text(now - self._started)}\n")

    def clear(self) -> None:
        """Take the line off the terminal; elsewhere what is said now counts as a line of it."""
        with _LOCK:
            if self._written:
                self._write("\r\x1b[K")
                self._written = False
            self._said = time.monotonic()  # another line comes in its place

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def say(line: str, stream: TextIO | None = None) -> None:
    """Print a line at once, above that of progress; on standard output where no stream is named."""
    with _LOCK:
        for shown in _OPEN:
            shown.clear()
        print(line, file=stream or sys.stdout, flush=True)


def changes(stream: TextIO) -> bool:
    """Tell whether a line on it can change: it is a terminal, and not that of CI."""
    return stream.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")


@contextmanager
def working(what: str, expected: float | None = None) -> Iterator[Shown]:
    """Tell how long something takes while it is done; nothing where it is over at once.

    Args:
        what: is done, as the line begins.
        expected: seconds that it takes as far as is known.
    """

    def text(seconds: float) -> str:
        about = f" of about {duration(expected)}" if expected else ""
        return f"{what}: {duration(seconds)}{about}"

    with _shown(Shown(text, sys.stderr)) as shown:
        yield shown


class Count:
    """How far something is, in bytes. total: of them, None where it is not known (yet)."""

    def __init__(self, what: str, total: int | None) -> None:
        self.total = total
        self._what, self._done = what, 0
        self._lock = threading.Lock()

    def __call__(self, more: int) -> None:
        """Count bytes; fewer than none for what is done again."""
        with self._lock:
            self._done += more

    def text(self, seconds: float) -> str:
        """Return share, rate and time left, after so many seconds."""
        rate = self._done / seconds if seconds else 0.0
        if not self.total:
            return f"{self._what}: {amount(self._done)}, {amount(rate)}/s"
        share = f"{100 * self._done // self.total} %"
        left = f", {duration((self.total - self._done) / rate)} left" if 0 < self._done < self.total else ""
        return f"{self._what}: {amount(self._done)} of {amount(self.total)} ({share}), {amount(rate)}/s{left}"


@contextmanager
def bar(what: str, total: int | None) -> Iterator[Count]:
    """Tell how many bytes are done on standard error; nothing where they are done at once.

    Args:
        what: is done, for the label.
        total: bytes; None where that is not known, and `Count.total` may be set later.
    """
    count = Count(what, total)
    with _shown(Shown(count.text, sys.stderr)):
        yield count


def lines(what: str, total: int, say: Callable[[str], None]) -> Callable[[int], None]:
    """Return a progress that says a line at most every ten seconds, none at all for what is done sooner."""
    count, started = Count(what, total), time.monotonic()
    said = started

    def told(more: int) -> None:
        nonlocal said
        count(more)
        now = time.monotonic()
        if now - said >= EVERY:
            said = now
            say(count.text(now - started))

    return told


@contextmanager
def _shown(shown: Shown) -> Iterator[Shown]:
    """Show a line from a thread, so that it also moves while nothing else does."""
    over = threading.Event()

    def keep_looking() -> None:
        while not over.wait(TICK):
            shown.look()

    with _LOCK:
        if _OPEN:
            _OPEN[-1].clear()
        _OPEN.append(shown)
    thread = threading.Thread(target=keep_looking, daemon=True)
    thread.start()
    try:
        yield shown
    finally:
        over.set()
        thread.join()
        with _LOCK:
            shown.clear()
            _OPEN.remove(shown)
