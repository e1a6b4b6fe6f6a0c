"""What compiled kernels are worth on this machine's GPU: saved out of one pod, used by the next one.

`make kernels` and `modelcar:kernels` are what anyone uses (docs/operations/cold-start.md). The starts without
them are the report's other pods, whose caches are empty and which are told `off`.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local.gpu_report.children import Failed
from local.gpu_report.site import Model, Site
from local.instance import PROJECT

#: Bytes that are read at a time, past the page cache.
_BLOCK = 16 * 2**20
#: Of a disk: what O_DIRECT reads has to be a multiple of it.
_SECTOR = 4096
#: How vLLM's log ends up being told: all that is compiled came out of the cache.
HIT = "hit"


def save(site: Site, model: Model) -> dict[str, Any]:
    """Save what the model's ready pod has compiled; return its layer, and the floor of reading the weights.

    Raises:
        Failed: nothing was saved.
    """
    command = [sys.executable, "-m", "operations", "--project", str(site.project)]
    done = site.children.run(
        f"{model.stack}-kernels",
        [*command, "kernels", "save", "--stack", model.stack],
        folder=PROJECT,
        env=site.variables,
    )
    entries = site.lock(model).kernels
    if not entries:
        raise Failed(f"the lock has no kernels: {done.said[-300:]}")
    entry = entries[-1]
    files = site.unpacked(model)
    return {
        "command": "make kernels",
        "seconds": round(done.seconds, 1),
        "layer": {"name": entry.name, "digest": entry.digest, "bytes": entry.size},
        "weightsReadDirectly": round(read_directly(files), 2),
    }


def read_directly(folder: Path) -> float:
    """Return the seconds that reading a folder's weights takes past the page cache: the disk's own floor.

    0 where its file system does not allow that.
    """
    began = time.monotonic()
    with mmap.mmap(-1, _BLOCK) as buffer:
        for path in sorted(folder.rglob("*.safetensors")):
            try:
                file = os.open(path, os.O_RDONLY | os.O_DIRECT)
            except OSError:
                return 0.0
            try:
                place, size = 0, os.fstat(file).st_size
                while place < size:
                    place += os.preadv(file, [buffer], place) or size
                    if place % _SECTOR:  # the end of the file
                        break
            finally:
                os.close(file)
    return time.monotonic() - began


def require_hit(found: Mapping[str, Any]) -> None:
    """Check that a start took its compiled model out of the image.

    Raises:
        Failed: it compiled.
    """
    phases = found["coldstart"].get("server") or []
    told = next((one["cache"] for one in phases if one["name"] == "compile"), None)
    if told != HIT:
        raise Failed(f"the start compiled all the same: {found['coldstart'].get('kernels')}, cache {told}")
