"""A stack's state that is read while Pulumi writes it.

A backend of files keeps attributes beside each file, and empties that second file before it writes it anew
(gocloud.dev's fileblob, setAttrs): who reads at that moment is told `EOF`. A moment later all is there.
"""

from __future__ import annotations

#: How often to ask again, and the seconds before each: 2 s in all, where a write takes about a millisecond.
ATTEMPTS = 10
PAUSE = 0.2


def half_written(said: str) -> bool:
    """Tell if Pulumi says, by its last words, that what it read ended too early."""
    return said.rstrip().endswith("EOF")
