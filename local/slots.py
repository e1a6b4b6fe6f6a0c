"""Which of the platforms' networks a new one takes, where several checkouts may look at the same moment."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

#: Whose a slot is until its link is there, a file each: the state folder of its platform. For all checkouts.
CLAIMS = Path("/run/modelcar/slots")
#: Seconds that a claim counts: as long as a platform takes from here to its link. Tools are there by then.
FRESH = 120


def claim(slots: Iterable[int], state: Path) -> int | None:
    """Return the first slot that no other platform has claimed just now, and claim it; None: there is none.

    Who may not write the claims, as without root, takes the first and claims nothing.

    Args:
        slots: those without a link.
        state: folder of the platform's state, which names it.
    """
    try:
        CLAIMS.mkdir(parents=True, exist_ok=True)
        lock = (CLAIMS / "lock").open("w")
    except OSError:
        return next(iter(slots), None)
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for slot in slots:
            path = CLAIMS / str(slot)
            if _owner(path) in {None, str(state)}:
                path.write_text(str(state))
                return slot
    return None


def release(slot: int, state: Path) -> None:
    """Forget a claim of a platform's, as it stops."""
    path = CLAIMS / str(slot)
    with suppress(OSError):
        if path.read_text() == str(state):
            path.unlink()


def _owner(path: Path) -> str | None:
    """Return whose a claim is; None where there is none that counts."""
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
    return path.read_text() if age < FRESH else None
