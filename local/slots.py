"""Which of the platforms' networks a new one takes, where several checkouts may look at the same moment."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

#: Whose a slot is until its link is there, a file each for all checkouts: the state folder of its platform,
#: then the pids of the commands that have claimed it, a line each.
CLAIMS = Path("/run/modelcar/slots")
#: Seconds that a claim counts at least. It counts as long as one of its commands runs: the tools that a first
#: `make up` builds before its link is there take longer.
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
            owner, pids = _owner(path)
            if owner in {None, str(state)}:
                path.write_text("\n".join([str(state), *pids, str(os.getpid())]))
                return slot
    return None


def release(slot: int, state: Path) -> None:
    """Forget a claim of a platform's, as it stops."""
    path = CLAIMS / str(slot)
    with suppress(OSError):
        if _owner(path)[0] == str(state):
            path.unlink()


def _owner(path: Path) -> tuple[str | None, list[str]]:
    """Return whose a claim is and its commands that run; None where there is none that counts."""
    try:
        age = time.time() - path.stat().st_mtime
        state, *pids = path.read_text().split("\n")
    except FileNotFoundError:
        return None, []
    running = [pid for pid in pids if Path("/proc", pid).exists() and pid != str(os.getpid())]
    if age < FRESH or running:
        return state, running
    return None, []
