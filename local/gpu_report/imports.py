"""What a server's imports take, and what they would take with its files read ahead.

Its own Python imports what its API server imports: in turn with an empty page cache, with an empty one while
the files are read at the same time, and out of memory. It is not part of a pod's start: it tells what reading
a server's libraries ahead is worth on a machine.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from local.gpu_report.children import Children, Failed
from local.gpu_report.runner import Found
from local.page_cache import settle

#: What vLLM's `vllm serve` imports before it reads its arguments.
MODULE = "vllm.entrypoints.openai.api_server"
#: Files that are read at a time.
LANES = 8

# Shared libraries first, the one that was needed first at the head: the kernel maps them downwards. Then
# modules in the order of their imports; a file that holds compiled code is read in place of its source.
_LIST = f"""
import json, os, sys
import {MODULE}
maps = [line.split(maxsplit=5)[5].strip() for line in open("/proc/self/maps") if line.count(" /")]
mapped = list(dict.fromkeys(path for path in reversed(maps) if os.path.isfile(path)))
known = [vars(one).get("__cached__") or vars(one).get("__file__") for one in sys.modules.values()]
files = dict.fromkeys([*mapped, *(path for path in known if isinstance(path, str) and os.path.isfile(path))])
print("files:" + json.dumps(list(files)))
"""


def imports(
    children: Children, python: str, env: Mapping[str, str], folder: Path, scratch: Path, repeats: int
) -> Found:
    """Time a server's imports in the three ways, in turn.

    Args:
        children: that its processes are some of.
        python: the server's own.
        env: its variables.
        folder: where the list of its files is written.
        scratch: where what it writes goes.
        repeats: how often each way is timed.

    Raises:
        Failed: the module cannot be imported.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    said = children.run("imports-list", [python, "-c", _LIST], folder=scratch, env=env).said
    line = next((line for line in said.splitlines() if line.startswith("files:")), None)
    if line is None:
        raise Failed(f"{MODULE} was imported, and no file of it is told")
    files = [Path(path) for path in json.loads(line.removeprefix("files:"))]
    listed = folder / "imported-files"
    listed.write_text("".join(f"{path}\0" for path in files))
    reads: list[str | Path] = ["xargs", "-0", "-a", listed, "-n", "4", "-P", str(LANES)]
    reads += ["sh", "-c", 'cat -- "$@" > /dev/null', "-"]
    found: Found = {
        "module": MODULE,
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
        "lanes": LANES,
        "seconds": {"cold": [], "ahead": [], "warm": []},
        "read": [],
        "pageCacheDropped": True,
    }

    def timed(kind: str) -> None:
        done = children.run(f"imports-{kind}", [python, "-c", f"import {MODULE}"], folder=scratch, env=env)
        found["seconds"][kind].append(round(done.seconds, 2))

    for _ in range(repeats):
        for kind in found["seconds"]:
            if kind != "warm":
                found["pageCacheDropped"] &= settle()
            if kind != "ahead":
                timed(kind)
                continue
            began = time.monotonic()
            with children.background("imports-read", reads, folder=scratch) as reading:
                timed(kind)
                reading.wait()
            found["read"].append(round(time.monotonic() - began, 2))
    return found
