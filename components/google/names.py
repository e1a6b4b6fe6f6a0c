"""Names in Google Cloud, made of names that may be longer there or have other characters."""

from __future__ import annotations

import hashlib
import re

#: https://cloud.google.com/iam/docs/service-accounts-create
LONGEST_ID = 30
#: https://cloud.google.com/compute/docs/labeling-resources#requirements
LONGEST_LABEL = 63
#: Digits of a hash that keeps two names apart, which would be one otherwise.
_DIGITS = 6


def account_id(purpose: str) -> str:
    """Return the id of a service account: lower-case letters, digits and `-`, a letter first."""
    wanted = f"{purpose}-nodes".lower()
    made = re.sub(r"[^a-z0-9]", "-", wanted).strip("-")
    if not made[0].isalpha():
        made, wanted = f"n-{made}", f"n-{wanted}"
    return _fitted(made, LONGEST_ID, purpose, exact=made == wanted)


def label_value(text: str) -> str:
    """Return the value of a label: lower-case letters, digits, `_` and `-`."""
    wanted = text.lower()
    made = re.sub(r"[^\w-]", "-", wanted)
    return _fitted(made, LONGEST_LABEL, text, exact=made == wanted)


def _fitted(made: str, longest: int, whole: str, *, exact: bool) -> str:
    """Return a name that is short enough; its end is a hash of the whole, where another may look the same."""
    if exact and len(made) <= longest:
        return made
    digest = hashlib.sha256(whole.encode()).hexdigest()[:_DIGITS]
    return f"{made[: longest - _DIGITS - 1].rstrip('-_')}-{digest}"
