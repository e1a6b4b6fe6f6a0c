"""KServe with modelcar switched off, for a while."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from tests.conftest import Platform


@contextmanager
def modelcar_off(platform: Platform) -> Iterator[None]:
    """Switch modelcar off in KServe's settings for a while."""
    here = ("-n", "kserve", "configmap", "inferenceservice-config")
    text = platform.kubectl("get", *here, "-o", "jsonpath={.data.storageInitializer}")

    def put(value: str) -> None:
        patch = json.dumps({"data": {"storageInitializer": value}})
        platform.kubectl("patch", *here, "--type=merge", "-p", patch)

    put(json.dumps({**json.loads(text), "enableModelcar": False}))
    try:
        yield
    finally:
        put(text)
