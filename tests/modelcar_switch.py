"""KServe with other settings of the modelcar, for a while."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.conftest import Platform


@contextmanager
def kserve_with(platform: Platform, changes: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Change KServe's settings of the storage initializer for a while; None removes one. Yields its data."""
    here = ("-n", "kserve", "configmap", "inferenceservice-config")
    text = platform.kubectl("get", *here, "-o", "jsonpath={.data.storageInitializer}")

    def put(value: str) -> None:
        patch = json.dumps({"data": {"storageInitializer": value}})
        platform.kubectl("patch", *here, "--type=merge", "-p", patch)

    merged = {**json.loads(text), **changes}
    changed = json.dumps({name: value for name, value in merged.items() if value is not None})
    put(changed)
    try:
        yield {"storageInitializer": changed}
    finally:
        put(text)


@contextmanager
def modelcar_off(platform: Platform) -> Iterator[None]:
    """Switch modelcar off in KServe's settings for a while."""
    with kserve_with(platform, {"enableModelcar": False}):
        yield
