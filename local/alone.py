"""One process at a time, by a locked file. Standard library only: used before there is an environment."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from modelcar.progress import working


@contextmanager
def alone(lock: Path, progress: Callable[[str], None]) -> Iterator[int]:
    """Let one process at a time in, and yield the lock; the kernel drops the lock of one that dies."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"waiting for another process that holds {lock}")
            with working("   waiting"):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


@contextmanager
def unless_held(lock: Path) -> Iterator[bool]:
    """Hold the lock, and yield True; or yield False at once where another process holds it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:  # what is started does not get it: files are closed then
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
