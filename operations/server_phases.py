"""What a GPU server did until it was ready, phase by phase: from the lines that vLLM logs.

The lines are those of vLLM 0.23.0; the file that prints each stands beside its pattern. A line may carry the
API server's time, its process (`(EngineCore pid=84)`, `(Worker_TP0 pid=97)`) and its own time, to the second
(`INFO 11-28 16:47:56 [core.py:114]`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

#: What ends a phase, in the order of a start.
MARKS: tuple[tuple[str, re.Pattern[str]], ...] = (
    # entrypoints/serve/utils/api_utils.py: Python and vLLM are imported, the arguments are read
    ("imports", re.compile(r"non-default args: ")),
    # config/model.py: a child process has told what the model's class can do, or a former start's answer has
    ("class", re.compile(r"Resolved architecture: ")),
    # v1/engine/core.py: the engine's own process is there
    ("engine", re.compile(r"Initializing a V1 LLM engine \(")),
    # v1/worker/gpu_model_runner.py, and without "memory" v1/worker/gpu/model_runner.py
    ("weights", re.compile(r"Model loading took \S+ GiB(?: memory)? and [\d.]+ seconds")),
    # compilation/monitor.py, compilation/decorators.py
    (
        "compile",
        re.compile(
            r"torch\.compile took [\d.]+ s in total"
            r"|torch\.compile and initial profiling/warmup run together took [\d.]+ s in total"
            r"|Directly load AOT compilation from path "
        ),
    ),
    # v1/core/kv_cache_utils.py: the first run has shown how much memory is left
    ("profiling", re.compile(r"GPU KV cache size: [\d,]+ tokens")),
    # v1/worker/gpu_model_runner.py, v1/worker/gpu/model_runner.py
    ("graphs", re.compile(r"Graph capturing finished in \d+ secs")),
    # entrypoints/openai/api_server.py; uvicorn/lifespan/on.py, which says it last
    ("ready", re.compile(r"Starting vLLM server on |Application startup complete\.")),
)

#: v1/engine/core.py prints the whole configuration; config/vllm.py writes the device into it.
_ON_GPU = "device_config=cuda"
#: model_executor/model_loader/default_loader.py, sharded_state_loader.py
_READ = re.compile(r"Loading weights took ([\d.]+) seconds")
#: compilation/decorators.py: all of the compiled model, out of the cache.
_LOADED = re.compile(r"Directly load AOT compilation from path ")
#: compilation/backends.py: only its graphs, out of the cache.
_GRAPHS_LOADED = re.compile(r"Directly load the compiled graph\(s\) for compile range ")
#: compilation/backends.py: a graph that was in no cache.
_COMPILED = re.compile(r"Compiling a graph for compile range ")
#: compilation/backends.py: graphs are put together, after Dynamo or out of a whole model that was loaded
#: (VllmSerializableFunction.finalize_loading).
_PUT_TOGETHER = re.compile(r"Dynamo bytecode transform time: ")

#: compilation/decorators.py: of a compiled model that is there, or half there, and does not load.
_REFUSED = re.compile(r"Compiling model again due to a load failure from \S+, reason: (.*)")
#: compilation/decorators.py, at the end of a compilation of its own.
_SAVED = re.compile(r"saved AOT compiled function to ")

_STAMPED = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)) ?(.*)", re.DOTALL)
#: logger.py: "%(levelname)s %(asctime)s [%(fileinfo)s:%(lineno)d] %(message)s"
_PRINTED = re.compile(r"\b(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) (\d\d-\d\d \d\d:\d\d:\d\d) \[")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Phase:
    """One phase of a server's start.

    name: imports, class, engine, weights, compile, profiling, graphs or ready.
    seconds: that it took.
    cache: of `compile` only: `hit` (all of it loaded), `part` (some), `miss` (all compiled here).
    read: of `weights` only: the seconds of it in which the files were read; None where that was not logged.
    """

    name: str
    seconds: float
    cache: str | None = None
    read: float | None = None


def server_phases(text: str, began: datetime | None = None) -> tuple[Phase, ...]:
    """Return the phases of a GPU server's start; nothing of a server that is not vLLM on a GPU.

    Phases that the server does not have (`compile` and `graphs` with enforce-eager) are left out; their time
    would be none. Where several ranks log the same line, the last one ends the phase.

    Args:
        text: the whole log of one container. The times before the lines (RFC 3339, as the API server writes
            them) are used; where there are none, those that vLLM prints, which are right to a second.
        began: when the server was started, with its time zone, which printed times are taken to be of too;
            without it the first phase that is found is where the others begin, and is not told itself.
    """
    marks: dict[str, datetime] = {}
    reached, on_gpu = 0, False
    cache = _Cache()
    read: list[float] = []
    for stamp, said in _lines(text, began):
        on_gpu = on_gpu or _ON_GPU in said
        cache.see(said)
        if found := _READ.search(said):
            read.append(float(found[1]))
        for index, (name, pattern) in enumerate(MARKS[reached:], reached):
            if stamp and pattern.search(said):
                marks[name], reached = stamp, index
                break
    if not on_gpu:
        return ()
    phases = []
    former = began
    for name, stamp in marks.items():
        if former is not None:
            phases.append(
                Phase(
                    name,
                    max(0.0, (stamp - former).total_seconds()),
                    (cache.found or "miss") if name == "compile" else None,
                    max(read, default=None) if name == "weights" else None,
                )
            )
        former = stamp
    return tuple(phases)


class _Cache:
    """What the lines of a log tell of the compiled model: whether it was loaded."""

    def __init__(self) -> None:
        self.loaded = self.graphs_loaded = self.compiled = self.put_together = False
        self.refused = ""

    def see(self, line: str) -> None:
        self.loaded = self.loaded or bool(_LOADED.search(line))
        self.graphs_loaded = self.graphs_loaded or bool(_GRAPHS_LOADED.search(line))
        self.compiled = self.compiled or bool(_COMPILED.search(line) or _SAVED.search(line))
        self.put_together = self.put_together or bool(_PUT_TOGETHER.search(line))
        if found := _REFUSED.search(line):
            self.refused = found[1].strip()

    @property
    def found(self) -> str | None:
        if self.loaded:
            return "part" if self.compiled else "hit"
        if self.graphs_loaded:
            return "part"
        return "miss" if self.compiled or self.put_together else None


def compile_cache(text: str) -> tuple[str | None, str]:
    """Return whether a server of any device loaded its compiled model, and why it did not where it says so.

    `hit`: all of it; `part`: some; `miss`: it compiled all; None: it compiles nothing, or the log is cut off.
    """
    cache = _Cache()
    for line in text.splitlines():
        cache.see(line)
    return cache.found, cache.refused


def stamp_of(text: str) -> datetime:
    """Return a time as the kubelet writes it: in nanoseconds, of which Python takes six digits."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))


def _lines(text: str, began: datetime | None) -> Iterator[tuple[datetime | None, str]]:
    """Yield each line with its time, None where it has none, and without colours."""
    former: datetime | None = None
    # vLLM prints no year: without one to go by, a leap year, so that each day is one.
    year, zone = (began.year, began.tzinfo) if began else (2000, UTC)
    for line in _COLOUR.sub("", text).split("\n"):  # a progress bar's returns end no line
        if found := _STAMPED.match(line):
            yield stamp_of(found[1]), found[2]
            continue
        if printed := _PRINTED.search(line):
            stamp = datetime.strptime(f"{year}-{printed[1]}", "%Y-%m-%d %H:%M:%S").replace(tzinfo=zone)
            last = former or began
            if last and (last - stamp).days > 300:  # New Year's Eve
                year += 1
                stamp = stamp.replace(year=year)
            former = stamp
        # A line without a time of its own, as uvicorn's, was printed after the one before it.
        yield former, line


def lines_of(phases: tuple[Phase, ...]) -> Iterator[str]:
    """Yield the phases for people."""
    told = {"hit": "from the cache", "part": "partly from the cache", "miss": "not in the cache"}
    for phase in phases:
        note = told.get(phase.cache or "", "")
        if phase.read is not None:
            note = f"files read in {phase.read:.1f} s"
        yield f"{phase.name:<9} {phase.seconds:9.1f} s  {note}".rstrip()
