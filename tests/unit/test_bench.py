"""The benchmarks: pages claim what was recorded, and one way that fails does not end the others."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from bench.report import from_folder, table

DOCS = Path(__file__).parents[2] / "docs"


def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / "benchmark.json").read_text())
    return found


# --- the report -------------------------------------------------------------------------------------


def test_the_pages_figures_are_the_recorded_ones() -> None:
    assert table(recorded()) in (DOCS / "benchmark.md").read_text()


def entry(way: str, seconds: float, state: str = "cold", **more: Any) -> dict[str, Any]:
    return {"way": way, "state": state, "seconds": seconds, "gib": 4.0, "files": 1, **more}


def test_our_ways_are_timed_from_the_folder_of_weights_as_the_others_are() -> None:
    """The lock hashes and copies the weights: without it ours would start where the floor ends."""
    ours = [entry(way, 20, storeGrewBy=1, memoryMiB={}) for way in ("pulumi up", "remote context")]
    others = [entry(way, 18, storeGrewBy=1) for way in ("floor", "oras")]
    lock, again = entry("lock", 10), entry("pulumi up", 2, "unchanged", storeGrewBy=0)
    lines = table({"results": [lock, *ours, *others, again]}).splitlines()
    assert "| 4 GiB, 1 files | lock and pulumi up | 30.0 | 10.0 | 1.67 |  | 2.0 | 0.0 |" in lines
    assert "| 4 GiB, 1 files | lock and remote context | 30.0 | 10.0 | 1.67 |  |  |  |" in lines
    assert "| 4 GiB, 1 files | oras | 18.0 |  | 1.00 |  |  |  |" in lines
    assert not any("| pulumi up |" in line for line in lines), "it would seem to be faster than it is"


def test_the_goals_are_told_with_the_lock_in_them() -> None:
    page = (DOCS / "benchmark.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith("| lock and `pulumi up` take at most"))
    told = {
        (float(gib), int(files)): float(ratio)
        for ratio, gib, files in re.findall(r"([\d.]+) \(([\d.]+) GiB, (\d+) files?", row)
    }
    cold = {(one["gib"], one["files"], one["way"]): one["seconds"] for one in from_folder(recorded())}
    later = from_folder({"results": recorded()["later"]})
    cold |= {(one["gib"], one["files"], one["way"]): one["seconds"] for one in later}
    for (gib, files), ratio in told.items():
        measured = cold[gib, files, "lock and pulumi up"] / cold[gib, files, "floor"]
        assert f"{measured:.2f}" == f"{ratio:.2f}", (gib, files)
    assert set(told) == {(8, 16), (4, 16), (8, 1), (4, 1), (1, 1), (1, 16)}


def test_no_figure_claims_to_count_what_was_sent() -> None:
    """What is measured is the growth of a store that keeps each blob once."""
    assert "sent" not in table(recorded()).casefold()
    assert "registry's store grew by" in table(recorded())
