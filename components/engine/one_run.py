"""What is kept for one run of a program: a process may run several, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")


class _NoLoop:
    """Stands for the loop of a program that Pulumi does not run, such as a test's."""


_NO_LOOP = _NoLoop()


class OfOneRun(Generic[T]):
    """A value for each run, made when it is first asked for. Each run has an event loop of its own."""

    def __init__(self, make: Callable[[], T]) -> None:
        """Say how it is made."""
        self._make = make
        self._found: WeakKeyDictionary[object, T] = WeakKeyDictionary()

    def get(self) -> T:
        """Return the value of the run that asks."""
        run: object = _NO_LOOP
        with suppress(RuntimeError):
            run = asyncio.get_running_loop()
        if run not in self._found:
            self._found[run] = self._make()
        return self._found[run]
