"""What a server's imports take, and what they would take with its files read ahead.

Its own Python imports what its API server imports: in turn with an empty page cache, with an empty one while
the files are read at the same time, and out of memory; then while a model's weights are read, as pods with
`modelcar:readAhead` do, and while first those files are read and then the weights. It is not part of a pod's
start: it tells what reading ahead is worth on a machine, and in which order.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from components.manifests import read_ahead
from local.gpu_report.children import Children, Failed
from local.gpu_report.runner import Found
from local.page_cache import settle

#: What vLLM's `vllm serve` imports before it reads its arguments.
MODULE = "vllm.entrypoints.openai.api_server"
#: Reads at a time. Large files are read in pieces of so many bytes, of small ones so many by one program: a
#: reader that had the five largest libraries to itself would take as long as the imports.
LANES, PIECE, TOGETHER = 8, 64 * 2**20, 64
#: What is read while a server imports.
FILES, WEIGHTS, BOTH = "ahead", "weights", "ahead, weights"

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
    children: Children,
    python: str,
    env: Mapping[str, str],
    folder: Path,
    scratch: Path,
    repeats: int,
    weights: Path | None = None,
) -> Found:
    """Time a server's imports in each way, in turn.

    Args:
        children: that its processes are some of.
        python: the server's own.
        env: its variables.
        folder: where the list of its files is written.
        scratch: where what it writes goes.
        repeats: how often each way is timed.
        weights: a folder with a model's files; None leaves out the ways with them.

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
    listed.write_text("".join(f"{job}\0" for job in _reads(files)))
    own = f"xargs -0 -a {shlex.quote(str(listed))} -n 1 -P {LANES} sh -c 'eval \"$1\"' -"
    model = read_ahead.to_its_end(shlex.quote(str(weights))) if weights else ""
    reads = {FILES: own} | ({WEIGHTS: model, BOTH: f"{own}\n{model}"} if weights else {})
    kinds = ("cold", FILES, "warm", *(kind for kind in reads if kind != FILES))
    found: Found = {
        "module": MODULE,
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
        "lanes": LANES,
        "seconds": {kind: [] for kind in kinds},
        "read": {kind: [] for kind in reads},
        "pageCacheDropped": True,
    }
    if weights:
        found["weights"] = sum(path.stat().st_size for path in weights.rglob("*") if path.is_file())

    def timed(kind: str) -> None:
        name = f"imports-{kind.replace(', ', '-')}"
        done = children.run(name, [python, "-c", f"import {MODULE}"], folder=scratch, env=env)
        found["seconds"][kind].append(round(done.seconds, 2))

    for _ in range(repeats):
        for kind in kinds:
            if kind != "warm":
                found["pageCacheDropped"] &= settle()
            if kind not in reads:
                timed(kind)
                continue
            began = time.monotonic()
            with children.background("imports-read", ["sh", "-c", reads[kind]], folder=scratch) as reading:
                timed(kind)
                reading.wait()
            found["read"][kind].append(round(time.monotonic() - began, 2))
    return found


def _reads(files: Sequence[Path]) -> Iterator[str]:
    """Yield shell commands that read files, the large ones first and in pieces."""
    sizes = {path: path.stat().st_size for path in files}
    for path in (path for path, size in sizes.items() if size > PIECE):
        for piece in range(-(-sizes[path] // PIECE)):
            which = f"skip={piece * PIECE // 2**20} count={PIECE // 2**20}"
            yield f"dd if={shlex.quote(str(path))} of=/dev/null bs=1048576 {which} 2>/dev/null"
    small = [shlex.quote(str(path)) for path, size in sizes.items() if size <= PIECE]
    for place in range(0, len(small), TOGETHER):
        yield f"cat -- {' '.join(small[place : place + TOGETHER])} > /dev/null"
