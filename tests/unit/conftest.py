"""No unit test asks the makers of the tools whether they can be reached, unless it says so itself."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def from_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELCAR_TOOLS", "source")
