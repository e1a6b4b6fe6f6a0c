"""Waiting for something in the cluster: several collections are watched, a check runs after each change."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from standins.kubernetes_provider.cluster import Cluster
from standins.kubernetes_provider.stopping import Stop


@dataclass(frozen=True)
class Verdict:
    """What a check found: done, or what is still missing.

    again_in: seconds after which to check again even if nothing changes; None where only a change counts.
    """

    done: bool
    message: str = ""
    again_in: float | None = None


@dataclass
class Followed:
    """The objects of one watched collection, by uid, as of the last event."""

    path: str
    query: dict[str, str]
    items: dict[str, dict[str, Any]] = field(default_factory=dict)
    synced: bool = False

    def take(self, kind: str, objects: list[dict[str, Any]]) -> None:
        """Take one event of Cluster.watch in."""
        if kind == "SYNC":
            self.items = {item["metadata"]["uid"]: item for item in objects}
            self.synced = True
            return
        for item in objects:
            if kind == "DELETED":
                self.items.pop(item["metadata"]["uid"], None)
            else:
                self.items[item["metadata"]["uid"]] = item


@dataclass(frozen=True)
class Outcome:
    """How a wait ended: ready, or by time or cancellation with what was missing then."""

    done: bool
    cancelled: bool
    message: str


class Watcher:
    """Watches for one wait. `follow` what the check looks at, then `wait` once."""

    def __init__(self, cluster: Cluster, stop: Stop) -> None:
        """Stop: ends the wait early, as cancelled."""
        self._cluster = cluster
        self._outer = stop
        self._own = Stop()
        self._events: queue.Queue[Callable[[], None]] = queue.Queue()
        self._followed: list[Followed] = []

    def follow(self, path: str, **query: str) -> Followed:
        """Have a collection watched once the wait begins."""
        followed = Followed(path, query)
        self._followed.append(followed)
        return followed

    def wait(self, check: Callable[[], Verdict], seconds: float, progress: Callable[[str], None]) -> Outcome:
        """Wait until the check is done, at most these seconds; progress gets what is missing, on change.

        Raises:
            ClusterError: something may not be watched.
        """
        deadline = time.monotonic() + seconds
        # A reason to wake up that changes nothing: the loop then sees that the outer stop is set.
        with self._outer.calling(lambda: self._events.put(lambda: None)):
            try:
                for followed in self._followed:
                    threading.Thread(target=self._watch, args=(followed,), daemon=True).start()
                return self._loop(check, deadline, progress)
            finally:
                self._own.set()

    def _loop(
        self, check: Callable[[], Verdict], deadline: float, progress: Callable[[str], None]
    ) -> Outcome:
        verdict = Verdict(False, "waiting for the API server")
        while True:
            if all(followed.synced for followed in self._followed):
                previous, verdict = verdict, check()
                if verdict.done:
                    return Outcome(True, False, verdict.message)
                if verdict.message != previous.message:
                    progress(verdict.message)
            if self._outer.is_set():
                return Outcome(False, True, verdict.message)
            left = deadline - time.monotonic()
            if left <= 0:
                return Outcome(False, False, verdict.message)
            try:
                pause = left if verdict.again_in is None else min(left, verdict.again_in)
                self._events.get(timeout=pause)()
                while True:  # what arrived together is looked at once
                    self._events.get_nowait()()
            except queue.Empty:
                pass

    def _watch(self, followed: Followed) -> None:
        try:
            for kind, objects in self._cluster.watch(followed.path, followed.query, self._own):
                self._events.put(lambda kind=kind, objects=objects: followed.take(kind, objects))  # type: ignore[misc]
        except Exception as error:
            self._events.put(lambda error=error: _throw(error))  # type: ignore[misc]


def _throw(error: Exception) -> None:
    raise error
