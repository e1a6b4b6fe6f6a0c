"""The benchmarks: pages claim what was recorded, and one way that fails does not end the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.report import table

DOCS = Path(__file__).parents[2] / "docs"


def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / "benchmark.json").read_text())
    return found


# --- the report -------------------------------------------------------------------------------------


def test_the_pages_figures_are_the_recorded_ones() -> None:
    assert table(recorded()) in (DOCS / "benchmark.md").read_text()


def test_no_figure_claims_to_count_what_was_sent() -> None:
    """What is measured is the growth of a store that keeps each blob once."""
    assert "sent" not in table(recorded()).casefold()
    assert "registry's store grew by" in table(recorded())
