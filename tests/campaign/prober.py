"""Asks a served pod all the time, as clients do, and counts what was not answered."""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass, field

INTERVAL = 0.1
PATIENCE = 2.0


@dataclass
class Prober:
    """Requests to one address from `start` to `stop`.

    sent, failed: counts. longest: seconds without an answer. reasons: what failed, and how often.
    """

    host: str
    port: int
    path: str = "/health"
    sent: int = 0
    failed: int = 0
    longest: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> Prober:
        """Ask from now on."""
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()
        return self

    def stop(self) -> Prober:
        """Ask no more; the counts are final."""
        self._over.set()
        if self._thread:
            self._thread.join()
        return self

    def _ask(self) -> None:
        answered = time.monotonic()
        while not self._over.wait(INTERVAL):
            self.sent += 1
            reason = self._failure()
            now = time.monotonic()
            if reason:
                self.failed += 1
                self.reasons[reason] = self.reasons.get(reason, 0) + 1
                self.longest = max(self.longest, now - answered)
            else:
                answered = now

    def _failure(self) -> str:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)
        try:
            connection.request("GET", self.path)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        finally:
            connection.close()
        return "" if status == 200 else f"HTTP {status}"
