"""Kubernetes quantities, as numbers."""

from __future__ import annotations

import re

#: A Kubernetes quantity (`500m`, `1.5`, `16Gi`, `1e9`).
QUANTITY = re.compile(
    r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?:(?P<unit>m|[kMGTPE]|[KMGTPE]i)|(?P<exponent>[eE][+-]?[0-9]{1,3}))?"
)
UNITS = {"m": 1e-3, "k": 1e3, **{u: 1000.0 ** (i + 2) for i, u in enumerate("MGTPE")}}
UNITS |= {f"{u}i": 1024.0 ** (i + 1) for i, u in enumerate("KMGTPE")}


def quantity(text: str) -> float:
    """Return a Kubernetes quantity (`500m`, `16Gi`) as a number of its base unit.

    Raises:
        ValueError: it is not one.
    """
    found = QUANTITY.fullmatch(text)
    if not found:
        raise ValueError(f"not a Kubernetes quantity: {text!r}")
    return float(found["number"] + (found["exponent"] or "")) * UNITS.get(found["unit"] or "", 1.0)
