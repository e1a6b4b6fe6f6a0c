"""The glossary: a reader finds each term by its letter, and more behind a link."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).parents[2]
TEXT = (PROJECT / "docs/glossary.md").read_text()
_, *ENTRIES = re.split(r"^## ", TEXT, flags=re.MULTILINE)
TERMS = {entry.partition("\n")[0]: entry.partition("\n")[2].strip() for entry in ENTRIES}


def test_terms_are_in_alphabetical_order() -> None:
    assert list(TERMS) == sorted(TERMS, key=lambda term: re.sub("[^a-z]", "", term.casefold()))
    assert len(TERMS) == len(ENTRIES)


def test_each_entry_is_short_and_links_to_a_page_that_uses_the_term() -> None:
    for term, text in TERMS.items():
        links = re.findall(r"\]\(([\w/.-]+\.md)", text)
        assert links, f"{term} has no link"
        assert len(text) < 320, f"{term} is longer than two plain sentences"
        pages = "".join((PROJECT / "docs" / link).read_text().casefold() for link in links)
        words = term.removesuffix(" mode").replace("-", "").casefold().split()
        assert all(word in pages.replace("-", "") for word in words), f"{term}: not on {', '.join(links)}"


def test_it_is_found_from_the_first_page() -> None:
    index = (PROJECT / "docs/index.md").read_text()
    assert "](glossary.md)" in index
    assert "\nglossary\n" in index
