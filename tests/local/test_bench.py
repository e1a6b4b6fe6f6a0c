"""`make bench`, cut short: it measures, it reports, and what it cannot measure is told in words."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Checkout

pytestmark = [pytest.mark.extended, pytest.mark.timeout(600)]


def test_a_small_case_is_measured_and_reported(checkout: Checkout) -> None:
    said = checkout.make("bench", ARGS="--cases 0.01x2 --ways 'floor,layout context,pulumi up'").stdout
    results = json.loads((checkout.folder / "bench-results.json").read_text())["results"]
    assert not [entry for entry in results if entry["state"] == "failed"]
    assert {"lock", "floor", "layout context", "pulumi up"} <= {entry["way"] for entry in results}
    assert "layout context" in said


def test_what_there_is_not_is_told_with_what_there_is(checkout: Checkout) -> None:
    for arguments, told in (("--ways teleport", "teleport: choose from floor"), ("--cases all", "GiBxFILES")):
        ended = checkout.make("bench", ARGS=arguments, check=False)
        assert ended.returncode
        assert told in ended.stderr
        assert "Traceback" not in ended.stderr
