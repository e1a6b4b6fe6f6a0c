"""The reference is written out of the code, and is fresh."""

from __future__ import annotations

import re
import typing
from typing import Any

from components.config import reference
from components.config.gpus import NOT_OFFERED
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


def test_settings_of_a_section_are_told_apart() -> None:
    for section in SETTINGS.read_text().split("\n## ")[1:]:
        texts = re.findall(r"^\| `\w+` \|.*\| ([^|]+) \|$", section, re.MULTILINE)
        assert len(texts) == len(set(texts)), section.partition("\n")[0]


def test_gpus_that_are_refused_are_told_as_such() -> None:
    rows = re.findall(r"^\| `gpu` \|.*$", SETTINGS.read_text(), re.MULTILINE)
    assert len(rows) == 2
    for row in rows:
        for name in NOT_OFFERED:
            assert f"`{name}`" in row.split(" | ")[-1]


def choices(annotation: Any) -> set[str]:
    """Return the values that a setting can have, where they are listed; none where they are not."""
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return {str(part) for part in parts}
    return set().union(*map(choices, parts))


def test_a_setting_with_few_values_is_described_with_each_of_them() -> None:
    listed = {key: choices(KEYS[key].annotation) for key in declared().keys() & KEYS.keys()}
    assert "imageVolume" in listed["placement"]
    for key, row in declared().items():
        said = set(re.findall(r"\w+", row["description"]))
        assert listed.get(key, set()) <= said, f"Pulumi.yaml, {key}"


def test_every_argument_of_the_package_is_described_with_all_that_is_in_it() -> None:
    page = reference.components_page()
    assert re.findall(r"^\| `\w+` \|.*\|  \|$", page, re.MULTILINE) == []
    assert "| `max_replicas` | integer | `1` |" in page, "with its default"
    told = set(re.findall(r"^### (\w+)$", page, re.MULTILINE))
    assert {"SchedulingSettings", "Toleration", "VllmServer", "ClusterAccess", "NodeSettings"} <= told
    assert {name[1:-1] for name in re.findall(r"\[(`\w+`)\]\(#", page)} <= told


def test_only_what_the_package_exports_is_offered_to_other_programs() -> None:
    page = reference.components_page()
    own = set(re.findall(r"^## (\w+)\n\n.*of this program alone", page, re.MULTILINE))
    assert own == {"Model", "NewCluster", "ExistingImage", "SmokeTest"}


def test_every_component_is_told_with_its_type() -> None:
    page = reference.components_page()
    tokens = re.findall(r"^`(modelcar:[a-z]+:\w+)`", page, re.MULTILINE)
    assert "modelcar:kserve:ModelService" in tokens
    assert len(tokens) == len(set(tokens)) == page.partition("\n## Sections")[0].count("\n## ")


def test_docstrings_are_read_by_name() -> None:
    text = """All of it.

    one: the first,
        which goes on.
    two, three: both.

    Not: a name of something.
    """
    assert descriptions(text) == {"one": "the first, which goes on.", "two": "both.", "three": "both."}
