"""What compiled kernels are worth on this machine's GPU: saved out of one pod, used by the next one.

`make kernels` and `modelcar:kernels` are what anyone uses (docs/operations/cold-start.md). The starts without
them are the report's other pods, whose caches are empty and which are told `off`.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from local.gpu_report.children import Failed, last_words
from local.gpu_report.machine import identity
from local.gpu_report.site import Model, Site
from local.instance import PROJECT

#: Bytes that are read at a time, past the page cache, and how many reads are in flight.
_BLOCK = 16 * 2**20
READERS = 8
#: Of a disk: what O_DIRECT reads has to be a multiple of it.
_SECTOR = 4096
#: How vLLM's log ends up being told: all that is compiled came out of the cache.
HIT = "hit"


def given(folder: Path | None, model: Model) -> Path | None:
    """Return what another machine's report has saved of a model, where its folder has that."""
    found = folder / f"{model.stack}.tar" if folder else None
    return found if found and found.exists() else None


def save(site: Site, model: Model) -> dict[str, Any]:
    """Save what the model's ready pod has compiled; return its layer, and the floor of reading the weights.

    The site's folder of kernels gets it too, for a report of another machine.

    Raises:
        Failed: nothing was saved.
    """
    archive = site.kernels / f"{model.stack}.tar"
    archive.parent.mkdir(parents=True, exist_ok=True)
    found = _change(site, model, "save", "--out", str(archive))
    cards = [card.name for card in site.gpus.cards] if site.gpus else []
    archive.with_suffix(".json").write_text(json.dumps({"machine": identity(site.gpus), "cards": cards}))
    return {"command": "make kernels", **found}


def add(site: Site, model: Model, archive: Path) -> dict[str, Any]:
    """Take what another machine's report has saved; return what `save` does, and which machine that was.

    Raises:
        Failed: it cannot be added.
    """
    told = json.loads(archive.with_suffix(".json").read_text())
    if told["machine"] == identity(site.gpus):
        raise Failed(f"{archive} was saved on this machine: --kernels is for another one's")
    found = _change(site, model, "add", str(archive))
    return {"command": "make kernels", "ofMachine": told["machine"], "ofCards": told["cards"], **found}


def _change(site: Site, model: Model, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "operations", "--project", str(site.project)]
    before = site.lock(model).kernels
    done = site.children.run(
        f"{model.stack}-kernels-{arguments[0]}",
        [*command, "kernels", *arguments, "--stack", model.stack],
        folder=PROJECT,
        env=site.variables,
    )
    entries = [entry for entry in site.lock(model).kernels if entry not in before] or site.lock(model).kernels
    if not entries:
        raise Failed(f"the lock has no kernels: {last_words(done.said)}")
    entry = entries[-1]
    return {
        "seconds": round(done.seconds, 1),
        "layer": {"name": entry.name, "digest": entry.digest, "bytes": entry.size},
        "weightsReadDirectly": round(read_directly(site.unpacked(model)), 2),
        "readers": READERS,
    }


def read_directly(folder: Path) -> float:
    """Return the seconds that reading a folder's weights takes past the page cache: the disk's own floor.

    Several reads are in flight, of one file too: a disk does less for one reader that waits for each. 0 where
    the file system does not allow that.
    """
    files: list[int] = []
    try:
        for path in sorted(folder.rglob("*.safetensors")):
            files.append(os.open(path, os.O_RDONLY | os.O_DIRECT))
        blocks = ((file, place) for file in files for place in range(0, os.fstat(file).st_size, _BLOCK))
        lock = threading.Lock()

        def read(_: int) -> None:
            with mmap.mmap(-1, _BLOCK) as buffer:
                while True:
                    with lock:
                        block = next(blocks, None)
                    if block is None:
                        return
                    _read(*block, buffer)

        began = time.monotonic()
        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(read, range(READERS)))
        return time.monotonic() - began
    except OSError:
        return 0.0
    finally:
        for file in files:
            os.close(file)


def _read(file: int, place: int, buffer: mmap.mmap) -> None:
    """Read a block of a file, or as much as there is of it."""
    end = place + _BLOCK
    while place < end:
        with memoryview(buffer) as whole, whole[: end - place] as part:
            got = os.preadv(file, [part], place)
        place += got
        if not got or place % _SECTOR:  # the end of the file
            return


def require_hit(found: Mapping[str, Any]) -> None:
    """Check that a start took its compiled model out of the image.

    Raises:
        Failed: it compiled.
    """
    phases = found["coldstart"].get("server") or []
    told = next((one["cache"] for one in phases if one["name"] == "compile"), None)
    if told != HIT:
        raise Failed(f"the start compiled all the same: {found['coldstart'].get('kernels')}, cache {told}")
