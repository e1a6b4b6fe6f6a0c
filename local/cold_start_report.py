"""What `make coldstart` measured: as tables, a chart, and what larger models would take."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from local.forecast import Estimate, fit, forecast, machines


@dataclass(frozen=True)
class Run:
    """One start, in seconds. gb: of the model. state: first (nothing on the node), or warm (image there).

    schedule: from the pod's making to its node.
    pull: until the last blob is there. unpack: from then to the whole image.
    start: sandbox, init container, containers.
    link: until the server sees the model.
    load: until the server answers. probe: until Kubernetes knows. first_token: of the first request.
    """

    gb: float
    state: str
    server: str
    schedule: float = 0.0
    pull: float = 0.0
    unpack: float = 0.0
    start: float = 0.0
    link: float = 0.0
    load: float = 0.0
    probe: float = 0.0
    first_token: float = 0.0

    @property
    def total(self) -> float:
        """Seconds in all."""
        return sum(float(getattr(self, name)) for name in PHASES)


PHASES = ("schedule", "pull", "unpack", "start", "link", "load", "probe", "first_token")
#: What draws each phase in the chart.
MARKS = dict(zip(PHASES, ".Pu-~Lr1", strict=True))
#: Columns of the longest bar.
CHART = 80
#: GB, of what is forecast.
FORECAST_SIZES = (15.0, 70.0, 140.0)


def report(runs: Sequence[Run]) -> Iterator[str]:
    """Yield tables, chart and forecast, in Markdown that is fit for a terminal."""
    yield f"| model | start | {' | '.join(name.replace('_', ' ') for name in PHASES)} | in all |"
    yield f"|---|---|{'---|' * (len(PHASES) + 1)}"
    for run in runs:
        phases = " | ".join(f"{getattr(run, name):.2f}" for name in PHASES)
        yield f"| {_name(run)} | {run.state} | {phases} | {run.total:.2f} |"
    yield ""
    yield from _chart(runs)
    yield ""
    yield from _forecast(runs)


def _name(run: Run) -> str:
    _, _, placement = run.server.partition(", ")
    return f"{run.gb:g} GB{f', {placement}' if placement else ''}" if run.gb else f"tiny, {run.server}"


def _chart(runs: Sequence[Run]) -> Iterator[str]:
    """One bar a start; each phase has its letter, in the order in which they come."""
    yield "  ".join(f"{mark} {name.replace('_', ' ')}" for name, mark in MARKS.items())
    scale = CHART / max(run.total for run in runs)
    width = max(len(_name(run)) for run in runs)
    for run in runs:
        bar = "".join(mark * round(getattr(run, name) * scale) for name, mark in MARKS.items())
        yield f"{_name(run):>{width}} {run.state:<5} {bar} {run.total:.1f} s"


def _forecast(runs: Sequence[Run]) -> Iterator[str]:
    """What larger models would take: this machine's own cost for each GB, or the disk and network's."""
    first = [run for run in runs if run.gb and run.state == "first"]
    first = [run for run in first if run.server == first[0].server]  # of one placement
    if len(first) < 3:
        yield "(a forecast takes at least three sizes)"
        return
    sizes = [run.gb for run in first]
    rest = statistics.mean(run.total - run.pull - run.unpack - run.load for run in first)
    pull = fit(sizes, [run.pull + run.unpack for run in first])
    load = fit(sizes, [run.load for run in first])
    yield f"fitted here: pull and unpack {pull} s, load {load} s, all else {rest:.1f} s"
    yield ""
    yield "| model | disk | network | pull and unpack, s | load, s | in all, s |"
    yield "|---|---|---|---|---|---|"
    for size in FORECAST_SIZES:
        for machine in machines(size):
            pulled_in, loaded_in = forecast(size, pull, load, machine)
            whole = pulled_in + loaded_in + Estimate(rest, 0.0)
            cells = (f"{size:g} GB", machine.disk, f"{machine.network:g} GB/s", pulled_in, loaded_in, whole)
            yield f"| {' | '.join(map(str, cells))} |"


def document(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the runs for programs."""
    return [{**asdict(run), "total": run.total} for run in runs]
