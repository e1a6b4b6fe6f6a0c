"""The results as a table with ratios, and as a picture."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GIB = 2**30


def table(document: dict[str, Any]) -> str:
    """Return the results in Markdown: seconds, and the ratio to the floor and to default buildx."""
    return "\n".join([*_ways(document), "", *_rest(document)])


def _ways(document: dict[str, Any]) -> Iterator[str]:
    results = [entry for entry in document["results"] if "storeGrewBy" in entry]
    yield (
        "| model | way | cold s | of the floor | faster than buildx default | again s "
        "| again: registry's store grew by MiB |"
    )
    yield "|---|---|---|---|---|---|---|"
    for gib, files in sorted({(entry["gib"], entry["files"]) for entry in results}):
        here = [entry for entry in results if (entry["gib"], entry["files"]) == (gib, files)]
        cold = {entry["way"]: entry["seconds"] for entry in here if entry["state"] == "cold"}
        again = {entry["way"]: entry for entry in here if entry["state"] in {"warm", "unchanged"}}
        for way, seconds in sorted(cold.items(), key=lambda item: item[1]):
            floor = f"{seconds / cold['floor']:.2f}" if "floor" in cold else ""
            usual = f"{cold['buildx default'] / seconds:.1f}" if "buildx default" in cold else ""
            later = again.get(way)
            repeated = f"{later['seconds']:.1f} | {later['storeGrewBy'] / 2**20:.1f}" if later else " | "
            yield f"| {gib:g} GiB, {files} files | {way} | {seconds:.1f} | {floor} | {usual} | {repeated} |"


def _rest(document: dict[str, Any]) -> Iterator[str]:
    yield "| model | what | value |"
    yield "|---|---|---|"
    for entry in document["results"]:
        model = f"{entry['gib']:g} GiB, {entry['files']} files"
        if entry["state"] == "failed":
            yield f"| {model} | {entry['way']} | did not run: {entry['why'].splitlines()[-1]} |"
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
    ours = name in ("pulumi up", "layout context")
    style = {"linewidth": 2.5 if ours else 1.2, "marker": "o", "linestyle": ":" if name == "floor" else "-"}
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
    for entry in document["results"]:
        if entry["state"] == "cold" and entry["files"] > 1 and "storeGrewBy" in entry:
            series.setdefault(entry["way"], []).append((entry["gib"], entry["seconds"]))
    command = [str(environment / "bin/python"), "-c", _PLOT, str(image)]
    subprocess.run(command, input=json.dumps(series), text=True, check=True)
