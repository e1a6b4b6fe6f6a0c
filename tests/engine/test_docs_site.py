"""The pages of the documentation in a real browser: complete, readable by day and night, and on a phone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from modelcar.errors import InputError
from tests.browser import Browser, browser
from tests.conftest import PROJECT
from tests.served import served

MEASURE = (Path(__file__).parent / "docs_page.js").read_text()
#: Pixels: a desktop's window, and a small phone's.
DESKTOP, PHONE = 1280, 375

DOCS = PROJECT / "docs"
PAGES = sorted(str(page.relative_to(DOCS).with_suffix(".html")) for page in DOCS.rglob("*.md"))
#: One of everything that the tests look for.
BROKEN = """<!doctype html><title>broken</title><meta name="viewport" content="width=device-width">
<body style="background: black; color: #444"><main><p>Dark on dark.</p><div style="width: 2000px">wide</div>
<img src="gone.png"><img src="http://elsewhere.example/picture.png"><img src="black.svg" width="100"></main>
<script>console.error("said"); throw new Error("thrown")</script>"""
BLACK = """<svg xmlns="http://www.w3.org/2000/svg" width="100" height="100">
<path d="M10 10 90 90M90 10 10 90" stroke="black" stroke-width="9"/></svg>"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of each request."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Build the site as `make docs` does, and serve it; yield its address."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", str(DOCS), str(folder)]
    subprocess.run(build, cwd=PROJECT, check=True)
    with serve(folder) as address:
        yield address


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder; yield its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    with served(server):
        yield f"http://127.0.0.1:{server.server_port}"


@pytest.fixture(scope="module")
def page() -> Iterator[Browser]:
    """Start the browser. In CI it has to be there."""
    try:
        with browser() as found:
            yield found
    except InputError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def looked_at(page: Browser, site: str, name: str, *, width: int, dark: bool = False) -> dict[str, Any]:
    """Open a page, and return what a reader sees of it; nothing may be amiss in what it loads."""
    page.look(width=width, dark=dark)
    page.open(f"{site}/{name}")
    seen: dict[str, Any] = page.value(MEASURE)
    assert page.faults == []
    elsewhere = [url for url in page.requests.values() if not url.startswith((site, "data:"))]
    assert elsewhere == [], "something is loaded from another host"
    assert seen["missing"] == [], "pictures that are not there"
    assert seen["read"] > 20, "the page has text"
    return seen


@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_read(page: Browser, site: str, name: str) -> None:
    for width in (DESKTOP, PHONE):
        seen = looked_at(page, site, name, width=width)
        assert seen["width"] <= width, f"at {width} pixels the page scrolls sideways: {seen['wide']}"
        assert seen["faint"] == [], "too little contrast by day"
    seen = looked_at(page, site, name, width=DESKTOP, dark=True)
    assert max(seen["background"]) < 64, "the page is dark where the reader's system is"
    assert seen["faint"] == [], "too little contrast in the dark"
    assert seen["pale"] == [], "a picture cannot be seen in the dark"


def test_the_search_finds_a_word(page: Browser, site: str) -> None:
    page.look(width=DESKTOP)
    page.open(f"{site}/index.html")
    box = "document.querySelector('input[name=q]')"
    page.act(lambda: page.value(f"void ({box}.value = 'digest', {box}.form.submit())"))
    page.wait("document.querySelectorAll('#search-results ul.search li a').length >= 5")
    first = "document.querySelector('#search-results ul.search li a')"
    page.wait(f"{first}.closest('li').textContent.toLowerCase().includes('digest')")
    assert page.faults == []
    page.act(lambda: page.value(f"void {first}.click()"))
    assert "digest" in page.value("document.querySelector('article').textContent.toLowerCase()")
    assert page.faults == []


def test_the_search_tells_when_it_finds_nothing(page: Browser, site: str) -> None:
    page.look(width=PHONE)
    page.open(f"{site}/search.html?q=qqqzzz")
    page.wait("document.querySelector('#search-results').textContent.includes('did not match any documents')")
    assert page.faults == []


def test_each_page_has_a_name_of_its_own_in_the_list_of_pages(page: Browser, site: str) -> None:
    page.look(width=DESKTOP)
    page.open(f"{site}/index.html")
    listed = page.value(
        "[...document.querySelectorAll('.sidebar-tree a')].map((one) => one.textContent.trim())"
    )
    assert len(listed) > len(PAGES) / 2
    assert [name for name, count in Counter(listed).items() if count > 1] == []


def test_what_is_wrong_with_a_page_is_seen(page: Browser, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(BROKEN)
    (tmp_path / "black.svg").write_text(BLACK)
    with serve(tmp_path) as address:
        page.look(width=PHONE)
        page.open(f"{address}/index.html")
        seen = page.value(MEASURE)
        faults = "\n".join(page.faults)
        for expected in ("404 of", "elsewhere.example", "console.error: said", "Error: thrown"):
            assert expected in faults
        assert len(seen["missing"]) == 2
        assert seen["width"] > PHONE
        assert seen["wide"] == ['div "wide"']
        assert [row.split(":")[0] for row in seen["faint"]] == ["main > p", "main > div"]
        assert [row.split(": ")[0] for row in seen["pale"]] == [f"{address}/black.svg"]
