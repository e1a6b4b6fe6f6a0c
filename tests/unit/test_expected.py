"""`make up` says beforehand how long it takes: minutes where programs are to be built, seconds later."""

from __future__ import annotations

from pathlib import Path

import pytest

from local import expected
from local.expected import BUILD, seconds
from local.tool_list import TOOLS


def test_a_first_run_takes_what_was_measured() -> None:
    assert 15 * 60 < seconds(BUILD, server=False, running=False, processors=2) < 21 * 60


def test_a_first_run_with_downloads_takes_minutes_less() -> None:
    built = seconds(BUILD, server=False, running=False, processors=2)
    taken = seconds(BUILD, server=False, running=False, processors=2, downloads=tuple(BUILD))
    assert 100 < taken < 240
    part = seconds(BUILD, server=False, running=False, processors=2, downloads=("pulumi",))
    assert part == built - BUILD["pulumi"] + expected.DOWNLOAD


def test_more_processors_share_the_building_alone() -> None:
    two, eight, many = (seconds(BUILD, server=True, running=False, processors=n) for n in (2, 8, 64))
    assert eight - 48 == pytest.approx((two - 48) / 4)
    assert many == eight


@pytest.mark.parametrize(
    ("missing", "server", "running", "least", "most"),
    [
        ((), True, True, 5, 10),
        ((), True, False, 30, 60),
        ((), False, True, 60, 100),
        (("buildx",), True, True, 30, 40),
    ],
)
def test_a_later_run_takes_seconds(
    missing: tuple[str, ...], server: bool, running: bool, least: float, most: float
) -> None:
    assert least <= seconds(missing, server=server, running=running, processors=2) <= most


@pytest.mark.parametrize(
    ("missing", "running", "line"),
    [
        ((), True, "this takes about 80 s here"),
        (("pulumi", "buildx"), False, "this takes about 5 minutes here: 2 programs to build first, once"),
        (("buildx",), True, "1 program to build first, once"),
    ],
)
def test_a_line_for_people(
    missing: tuple[str, ...], running: bool, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expected, "cache_root", lambda: tmp_path)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    told = expected.told(missing, running=running)
    assert line in told or line == told


@pytest.mark.parametrize(
    ("downloads", "line"),
    [
        (("pulumi", "buildx"), "this takes about 60 s here: 2 programs to download first, once"),
        (("pulumi",), "1 program to download and 1 program to build first, once"),
    ],
)
def test_a_line_for_people_says_what_is_downloaded(
    downloads: tuple[str, ...], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expected, "cache_root", lambda: tmp_path)
    (tmp_path / "servers" / "vllm").mkdir(parents=True)
    assert line in expected.told(("pulumi", "buildx"), running=False, downloads=downloads)


def test_every_time_is_of_a_program_that_there_is() -> None:
    assert BUILD.keys() <= {tool.name for tool in TOOLS}
