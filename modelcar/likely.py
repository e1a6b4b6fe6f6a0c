"""What was probably meant by a name that there is not."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def likely(key: str, names: Collection[str]) -> str | None:
    """Return the name that was probably meant; None where none is like it."""
    return next(iter(difflib.get_close_matches(key, names, n=1, cutoff=0.6)), None)
