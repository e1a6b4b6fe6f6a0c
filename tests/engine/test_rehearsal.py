"""`make rehearse`: the workflows' own commands, one after the other."""

from __future__ import annotations

import pytest

from tests.conftest import Platform

pytestmark = pytest.mark.extended


def test_the_workflows_steps_end_as_they_should(platform: Platform) -> None:
    output = platform.checkout.make("rehearse").stdout
    steps = [line for line in output.splitlines() if line.startswith("   as it should:")]
    assert [step.split(": ")[1] for step in steps] == [
        "done",
        "done",
        "done",
        "refused",
        "done",
        "done",
        "done",
    ]
