"""A node that has GPUs in name (an extended resource), for a while."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from local.pki import NODE
from tests.conftest import Platform

GPU = "nvidia.com/gpu"


def give(platform: Platform, count: int) -> None:
    """Give the node GPUs, and wait until pods can have them."""
    _patch(platform, str(count))
    there = rf"--for=jsonpath={{.status.allocatable.nvidia\.com/gpu}}={count}"
    platform.kubectl("wait", "node", NODE, there, "--timeout=60s")


def take(platform: Platform) -> None:
    """Take them away again; a node that has none stays as it is."""
    _patch(platform, None)


@contextmanager
def of_a_pool(platform: Platform, pool: str) -> Iterator[None]:
    """Let the node be one of a pool of Google's, with a GPU, for a while."""
    label = "cloud.google.com/gke-nodepool"
    platform.kubectl("label", "node", NODE, "--overwrite", f"{label}={pool}")
    try:
        give(platform, 1)
        yield
    finally:
        take(platform)
        platform.kubectl("label", "node", NODE, f"{label}-")


def _patch(platform: Platform, count: str | None) -> None:
    # Both: the kubelet derives one from the other, and only once in a while.
    patch = json.dumps({"status": {"capacity": {GPU: count}, "allocatable": {GPU: count}}})
    platform.kubectl("patch", "node", NODE, "--subresource=status", "--type=merge", "-p", patch)
