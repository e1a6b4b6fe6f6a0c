"""`make campaign` and `make soak`, cut short: they run, they report, and nothing of them stays."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Checkout

pytestmark = [pytest.mark.extended, pytest.mark.timeout(1200)]


def test_a_killed_engine_is_as_if_nothing_had_happened(checkout: Checkout) -> None:
    arguments = "--seed 11 --examples 0 --report told --only 'kill engine in update'"
    said = checkout.make("campaign", ARGS=arguments).stdout
    assert "1 of 92 cases" in said
    found = json.loads((checkout.folder / "told" / "campaign.json").read_text())
    assert (found["over"], found["lost"]) == (1, 0)
    assert not (checkout.folder / ".local" / "campaign").exists()


def test_a_soak_reports_what_it_saw(checkout: Checkout) -> None:
    said = checkout.make("soak", ARGS="--cycles 2 --models 2 --report told").stdout
    assert "Nothing is lost; so few cycles say nothing of growth." in said
    found = json.loads((checkout.folder / "told" / "soak.json").read_text())
    assert [cycle["wrong"] for cycle in found["cycles"]] == [[], []]
    assert found["many"]["answered"] == 2
    assert not (checkout.folder / ".local" / "campaign").exists()
