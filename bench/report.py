"""The results as a table with ratios, and as a picture."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GIB = 2**30
#: Ways of ours, timed from a locked model on: the lock has hashed its weights and written the layers.
AFTER_LOCK = frozenset({"pulumi up", "remote context", "layout context"})


def from_folder(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the cold results of all ways from the folder of weights on: ours with the lock before them.

    `lock`: seconds of it, in `seconds` too; None for ways that need none. The page cache was dropped between
    lock and way, so that the sum is no less than both take together.
    """
    locks = {_model(entry): entry["seconds"] for entry in document["results"] if entry["way"] == "lock"}
    found = []
    for entry in document["results"]:
        if entry["state"] != "cold" or "storeGrewBy" not in entry:
            continue
        lock = locks.get(_model(entry)) if entry["way"] in AFTER_LOCK else None
        more = {} if lock is None else {"way": f"lock and {entry['way']}", "seconds": lock + entry["seconds"]}
        found.append({**entry, **more, "lock": lock})
    return found


def _model(entry: dict[str, Any]) -> tuple[float, int]:
    return entry["gib"], entry["files"]


def table(document: dict[str, Any]) -> str:
    """Return the results in Markdown: seconds, and the ratio to the floor and to default buildx."""
    return "\n".join([*_ways(document), "", *_rest(document)])


def _ways(document: dict[str, Any]) -> Iterator[str]:
    yield (
        "| model | way | cold s | of it lock s | of the floor | faster than buildx default | again s "
        "| again: registry's store grew by MiB |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    results = from_folder(document)
    again = {
        (_model(entry), entry["way"]): entry
        for entry in document["results"]
        if entry["state"] in {"warm", "unchanged"}
    }
    for model in sorted({_model(entry) for entry in results}):
        here = sorted((entry for entry in results if _model(entry) == model), key=lambda one: one["seconds"])
        cold = {entry["way"]: entry["seconds"] for entry in here}
        for entry in here:
            way, seconds = entry["way"], entry["seconds"]
            lock = "" if entry["lock"] is None else f"{entry['lock']:.1f}"
            floor = f"{seconds / cold['floor']:.2f}" if "floor" in cold else ""
            usual = f"{cold['buildx default'] / seconds:.1f}" if "buildx default" in cold else ""
            later = again.get((model, way.removeprefix("lock and ")))  # the lock is there by then
            repeated = f"{later['seconds']:.1f} | {later['storeGrewBy'] / 2**20:.1f}" if later else " | "
            yield (
                f"| {model[0]:g} GiB, {model[1]} files | {way} | {seconds:.1f} | {lock} | {floor} | {usual} "
                f"| {repeated} |"
            )


def _rest(document: dict[str, Any]) -> Iterator[str]:
    yield "| model | what | value |"
    yield "|---|---|---|"
    for entry in document["results"]:
        model = f"{entry['gib']:g} GiB, {entry['files']} files"
        if entry["state"] in {"failed", "left out"}:
            said = {"failed": "did not run", "left out": "left out"}[entry["state"]]
            yield f"| {model} | {entry['way']} | {said}: {entry['why'].strip().splitlines()[-1]} |"
        elif entry["way"] in {"lock", "pulumi", "node pull"}:
            yield f"| {model} | {entry['way']}: {entry['state']} | {entry['seconds']:.2f} s |"
        elif entry["way"] == "disk":
            ratio = entry["bytes"] / (entry["gib"] * GIB)
            yield f"| {model} | {entry['state']} | {ratio:.2f} of the model on disk |"
        elif entry["state"] == "one file changed":
            grown = entry["storeGrewBy"] / 2**20
            value = f"{entry['seconds']:.2f} s, the registry's store grew by {grown:.0f} MiB"
            yield f"| {model} | {entry['state']}: lock and `pulumi up` | {value} |"
        if entry["way"] == "pulumi up" and entry["state"] == "cold":
            shown = ", ".join(f"{name} {peak}" for name, peak in sorted(entry["memoryMiB"].items()))
            yield f"| {model} | peak memory, MiB | {shown} |"


#: Runs in the benchmark's own environment, which has matplotlib.
_PLOT = """
import json, sys
import matplotlib
matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "modelcar"
import matplotlib.pyplot as plt
series = json.load(sys.stdin)
figure, axes = plt.subplots(figsize=(9, 5))
for name, points in series.items():
    style = {"linewidth": 2.5 if name.startswith("lock and ") else 1.2, "marker": "o"}
    style["linestyle"] = ":" if name == "floor" else "-"
    axes.plot([p[0] for p in points], [p[1] for p in points], label=name, **style)
axes.set_xscale("log", base=2)
axes.set_yscale("log", base=2)
axes.xaxis.set_major_formatter("{x:g}")
axes.yaxis.set_major_formatter("{x:g}")
axes.set_xlabel("model, GiB (16 files)")
axes.set_ylabel("weights on disk to pushed digest, seconds")
axes.grid(True, alpha=0.3)
axes.legend()
figure.tight_layout()
figure.savefig(sys.argv[1], metadata={"Date": None})
"""


def plot(document: dict[str, Any], image: Path, environment: Path) -> None:
    """Draw seconds over size for models of several files, one line a way."""
    series: dict[str, list[tuple[float, float]]] = {}
    for entry in from_folder(document):
        if entry["files"] > 1:
            series.setdefault(entry["way"], []).append((entry["gib"], entry["seconds"]))
    command = [str(environment / "bin/python"), "-c", _PLOT, str(image)]
    subprocess.run(command, input=json.dumps(series), text=True, check=True)
