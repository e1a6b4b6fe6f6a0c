"""The reference is written out of the code, and is fresh."""

from __future__ import annotations

import re

from components.config import reference
from components.config.loading import KEYS
from components.config.reference import SETTINGS, WITHOUT_DEFAULT, descriptions, pages
from tests.unit.test_components_settings import declared


def test_the_committed_pages_are_those_of_the_code() -> None:
    for path, text in pages().items():
        assert path.read_text() == text, "make reference"


def test_every_setting_is_described() -> None:
    empty = re.findall(r"^\| (`\w+`) \|.*\|  \|$", SETTINGS.read_text(), re.MULTILINE)
    assert empty == [], "say in the class's docstring what it is for"
    assert set(WITHOUT_DEFAULT) | set(declared()) >= set(KEYS)
    assert not set(WITHOUT_DEFAULT) & set(declared()), "Pulumi.yaml says it"


def test_every_component_is_told_with_its_type() -> None:
    page = reference.components_page()
    tokens = re.findall(r"^`(modelcar:[a-z]+:\w+)`", page, re.MULTILINE)
    assert "modelcar:kserve:ModelService" in tokens
    assert len(tokens) == len(set(tokens)) == page.count("\n## ")


def test_docstrings_are_read_by_name() -> None:
    text = """All of it.

    one: the first,
        which goes on.
    two, three: both.

    Not: a name of something.
    """
    assert descriptions(text) == {"one": "the first, which goes on.", "two": "both.", "three": "both."}
