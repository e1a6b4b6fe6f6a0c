"""A service that takes the place of another one needs room beside it."""

from __future__ import annotations

from typing import Any

import pytest

from components.config.models import load_stack
from components.stack import side_by_side
from tests.unit.test_google_settings import NODES, PROJECT, as_texts, dev

#: What stands in the entries of a list.
ALONE: dict[str, Any] = {"serviceName": None, "model": None}
FORMER = {"serviceName": "former", "namespace": "kserve-demo", "nodePool": "gpu"}


def doubts(former: dict[str, Any], **config: Any) -> list[str]:
    stack = load_stack(as_texts(dev(**config)), PROJECT)
    return list(side_by_side.doubts(stack, {"models": former}))


def test_a_service_that_is_renamed_on_a_full_pool_is_told_with_the_ways_on() -> None:
    [line] = doubts({"assistant": FORMER}, serviceName="assistant")
    assert line == (
        "assistant is made and waited for before former goes, and pool gpu has 1 of the 2 GPUs that all need "
        "at that time: this run would end without the new service. Raise modelcar:google.nodes.maxNodes to 2 "
        "for this run, or first let go of the pods (`make idle`) and change the name while the stack is idle"
    )


@pytest.mark.parametrize(
    "config",
    [
        {NODES + "maxNodes": 2},
        {"idle": True},
        {"awaitReady": False},
        {"serviceName": "former"},
        {"delivery": "gitops", "gitops": {"folder": "/checkout/apps"}},
    ],
)
def test_where_there_is_room_or_nothing_waits_nothing_is_said(config: dict[str, Any]) -> None:
    assert doubts({"assistant": FORMER}, **{"serviceName": "assistant", **config}) == []


def test_another_namespace_and_another_entry_are_other_services_too() -> None:
    assert doubts({"assistant": FORMER}, serviceName="former", namespace="other")
    entry = {"name": "new", "model": "qwen2.5-0.5b"}
    assert doubts({"old": FORMER}, models=[entry], **ALONE)
    assert doubts({"old": {**FORMER, "nodePool": "large"}}, models=[entry], **ALONE) == []
    assert doubts({}, models=[entry], **ALONE) == [], "the first run"
