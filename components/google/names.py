"""Names in Google Cloud, made of names that may be longer there or have other characters."""

from __future__ import annotations

import re

from components.config.fitted import fitted

#: https://cloud.google.com/iam/docs/service-accounts-create
LONGEST_ID = 30
#: https://cloud.google.com/compute/docs/labeling-resources#requirements
LONGEST_LABEL = 63


def account_id(purpose: str) -> str:
    """Return the id of a service account: lower-case letters, digits and `-`, a letter first."""
    wanted = f"{purpose}-nodes".lower()
    made = re.sub(r"[^a-z0-9]", "-", wanted).strip("-")
    if not made[0].isalpha():
        made, wanted = f"n-{made}", f"n-{wanted}"
    return fitted(made, LONGEST_ID, purpose, exact=made == wanted)


def label_value(text: str) -> str:
    """Return the value of a label: lower-case letters, digits, `_` and `-`."""
    wanted = text.lower()
    made = re.sub(r"[^\w-]", "-", wanted)
    return fitted(made, LONGEST_LABEL, text, exact=made == wanted)
