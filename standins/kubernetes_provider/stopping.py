"""Ending waits: from the engine's Cancel, from the end of the process, or because a wait has its answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stop:
    """A flag that can be set once, waited on, and that runs what was registered when it is set."""

    def __init__(self) -> None:
        """Not set yet."""
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: dict[object, Callable[[], None]] = {}

    def set(self) -> None:
        """Set the flag and run the callbacks; setting it again does nothing."""
        with self._lock:
            self._event.set()
            callbacks = list(self._callbacks.values())
            self._callbacks.clear()
        for callback in callbacks:
            callback()

    def is_set(self) -> bool:
        """Say whether it was set."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait until it is set, at most these seconds; returns whether it is."""
        return self._event.wait(seconds)

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """Within the block, run callback when the flag is set; at once if it is set already."""
        token = object()
        with self._lock:
            already = self._event.is_set()
            if not already:
                self._callbacks[token] = callback
        if already:
            callback()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.pop(token, None)
