"""Several layers at a time, and an end within seconds when the user stops the run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

from modelcar.packing import LOOK, Stopped

T = TypeVar("T")
R = TypeVar("R")


class Work:
    """Runs a function for each of some things, several at a time; the first error ends the others."""

    def __init__(self, jobs: int) -> None:
        """Take how many run at a time."""
        self._jobs = jobs
        self._stop = threading.Event()

    def all(self, function: Callable[[T], R], things: Sequence[T]) -> list[R]:
        """Return what the function returns of each thing, or raise what it raises of one."""
        if not things:
            return []
        pool = ThreadPoolExecutor(min(self._jobs, len(things)))
        try:
            futures = [pool.submit(function, thing) for thing in things]
            failed: list[BaseException] = []
            others = set(futures)
            while others and not failed:
                # Not without an end: Python looks for signals between two instructions (packing.py).
                done, others = wait(futures, LOOK, FIRST_EXCEPTION)
                failed = [error for future in done if (error := future.exception())]
            if others:
                self._stop.set()
            pool.shutdown(cancel_futures=True)
        except KeyboardInterrupt:
            self._stop.set()
            pool.shutdown(wait=False, cancel_futures=True)  # a server that hangs keeps its thread
            raise
        if failed:
            raise failed[0]
        return [future.result() for future in futures]

    def while_wanted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Pass pieces on, until the work is to end.

        Raises:
            Stopped: another thing failed, or the user stopped the run.
        """
        for piece in pieces:
            if self._stop.is_set():
                raise Stopped
            yield piece
