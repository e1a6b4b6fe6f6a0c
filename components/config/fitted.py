"""Names that are made of names which may be longer, or have other characters."""

from __future__ import annotations

import hashlib

#: Digits of a hash that keeps two names apart, which would be one otherwise.
_DIGITS = 6


def fitted(made: str, longest: int, whole: str, *, exact: bool) -> str:
    """Return a name that is short enough; its end is a hash of the whole, where another may look the same.

    Args:
        made: the name, of characters that are allowed.
        longest: characters that it may have.
        whole: what it was made of.
        exact: whether nothing of that was replaced.
    """
    if exact and len(made) <= longest:
        return made
    digest = hashlib.sha256(whole.encode()).hexdigest()[:_DIGITS]
    return f"{made[: longest - _DIGITS - 1].rstrip('-_')}-{digest}"
