"""Somebody who uses a model while it changes."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tests.engine.conftest import Project


class Client:
    """Asks a model without a pause, until it is told to stop.

    ask: returns nothing where it was answered, else what was said instead; what it raises counts as that.
    """

    def __init__(self, ask: Callable[[], str]) -> None:
        self._ask = ask
        self.answered, self.failed = 0, list[str]()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @classmethod
    def of(cls, project: Project) -> Client:
        """Return one that asks a stack's model through its Service."""
        service = f"{project.config['serviceName']}-predictor:80"
        path = f"/api/v1/namespaces/{project.namespace}/services/{service}/proxy/config.json"

        def ask() -> str:
            said = project.platform.kubectl("get", "--raw", path, check=False)
            return "" if '"model_type"' in said else said or "nothing"

        return cls(ask)

    def __enter__(self) -> Client:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                wrong = self._ask()
            except Exception as error:
                wrong = repr(error)
            if wrong:
                self.failed.append(wrong)
            else:
                self.answered += 1
