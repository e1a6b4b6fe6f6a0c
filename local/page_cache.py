"""The page cache, out of which a second run would read what a first one had to fetch."""

from __future__ import annotations

import os
from pathlib import Path


def settle() -> bool:
    """Write dirty pages and drop the page cache, so that no run profits from another; False if not root."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("1")
    except OSError:
        return False
    return True
