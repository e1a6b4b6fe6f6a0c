"""Sizes and progress, as people read them."""

from __future__ import annotations

import pytest

from modelcar import progress


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (4_124_027, "3.9 MiB"),
        (2**30, "1.0 GiB"),
        (140 * 10**9, "130.4 GiB"),
        (2**40, "1.0 TiB"),
        (2**53, "8192.0 TiB"),
    ],
)
def test_sizes(size: int, shown: str) -> None:
    assert progress.amount(size) == shown


def test_a_line_at_most_every_ten_seconds_with_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("modelcar.progress.time.monotonic", lambda: now)
    said: list[str] = []
    count = progress.lines("fetch m", 100 * 2**20, said.append)
    for second in range(1, 26):
        now = 100.0 + second
        count(2**20)
    assert said == [
        "fetch m: 10.0 MiB of 100.0 MiB, 1.0 MiB/s",
        "fetch m: 20.0 MiB of 100.0 MiB, 1.0 MiB/s",
    ]


def test_what_is_read_again_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("modelcar.progress.time.monotonic", lambda: now)
    said: list[str] = []
    count = progress.lines("fetch m", 4096, said.append)
    count(3072)
    count(-3072)
    now = 10.0
    count(1024)
    assert said == ["fetch m: 1.0 KiB of 4.0 KiB, 102 B/s"]


def test_without_a_terminal_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar("lock m", 10) as count:
        count(10)
    assert capsys.readouterr() == ("", "")
