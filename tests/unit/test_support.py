"""The table of tested versions follows from the code, and is fresh."""

from __future__ import annotations

from local import support
from local.instance import KSERVE_VERSION, KUBERNETES_VERSION


def test_the_committed_page_is_that_of_the_code() -> None:
    assert support.PAGE.read_text() == support.page(), "make reference"


def test_it_names_what_a_user_asks_for() -> None:
    text = support.page()
    assert f"| Kubernetes | {KUBERNETES_VERSION} |" in text
    assert f"| KServe | {KSERVE_VERSION} |" in text
    assert "| Pulumi SDK for Python | 3.272.0, and 3.259.0 | `>=3.259.0,<4` |" in text
    assert "| Python | 3.11 | `>=3.11` |" in text
