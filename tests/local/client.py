"""Somebody who uses a model while it changes."""

from __future__ import annotations

import threading
from functools import partial

from tests.engine.conftest import Project


class Client:
    """Asks a model through its Service without a pause, until it is told to stop."""

    def __init__(self, project: Project) -> None:
        service = f"{project.config['serviceName']}-predictor:80"
        path = f"/api/v1/namespaces/{project.namespace}/services/{service}/proxy/config.json"
        self._ask = partial(project.platform.kubectl, "get", "--raw", path, check=False)
        self.answered, self.failed = 0, list[str]()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Client:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            said = self._ask()
            if '"model_type"' in said:
                self.answered += 1
            else:
                self.failed.append(said)
