"""Progress for people: a bar with its rate on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

_UNITS = ("KiB", "MiB", "GiB", "TiB")

#: Seconds between lines where there is no terminal.
EVERY = 10.0


def amount(size: float) -> str:
    """Return a size in bytes for people to read."""
    if size < 1024:
        return f"{size:.0f} B"
    power = min(int(math.log2(size)) // 10, len(_UNITS))
    return f"{size / 1024**power:.1f} {_UNITS[power - 1]}"


@contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on standard error, where that is a terminal, and lines otherwise.

    Args:
        what: is done, for the label.
        total: bytes.
    """
    if not sys.stderr.isatty():
        yield lines(what, total, lambda line: print(line, file=sys.stderr, flush=True))
        return
    with tqdm(total=total, unit="B", unit_scale=True, unit_divisor=1024, desc=what) as shown:

        def count(more: int) -> None:
            shown.update(more)

        yield count


def lines(what: str, total: int, say: Callable[[str], None]) -> Callable[[int], None]:
    """Return a progress that says a line at most every ten seconds, none at all for what is done sooner."""
    done, started = 0, time.monotonic()
    said = started

    def count(more: int) -> None:
        nonlocal done, said
        done += more
        now = time.monotonic()
        if now - said >= EVERY:
            said = now
            rate = done / (now - started)
            say(f"{what}: {amount(done)} of {amount(total)}, {amount(rate)}/s")

    return count
