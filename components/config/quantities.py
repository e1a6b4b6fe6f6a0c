"""Kubernetes quantities, as exact numbers: with floats `700m` is more than `0.7`."""

from __future__ import annotations

import re
from fractions import Fraction

#: A Kubernetes quantity (`500m`, `1.5`, `.5`, `16Gi`, `1e9`).
QUANTITY = re.compile(
    r"(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:(?P<unit>m|[kMGTPE]|[KMGTPE]i)|(?P<exponent>[eE][+-]?[0-9]{1,3}))?"
)
UNITS = {"m": Fraction(1, 1000), **{u: Fraction(1000 ** (i + 1)) for i, u in enumerate("kMGTPE")}}
UNITS |= {f"{u}i": Fraction(1024 ** (i + 1)) for i, u in enumerate("KMGTPE")}
#: Kubernetes caps what is larger.
LARGEST = 2**63 - 1


def number_text(value: float) -> str:
    """Return a number with all of its digits: 5, 0.5, 1234567.5."""
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value)).removesuffix(".0")


def quantity(text: str) -> Fraction:
    """Return a Kubernetes quantity (`500m`, `16Gi`) as a number of its base unit.

    Raises:
        ValueError: it is not one.
    """
    found = QUANTITY.fullmatch(text)
    if not found:
        raise ValueError(f"not a Kubernetes quantity: {text!r}")
    return Fraction(found["number"] + (found["exponent"] or "")) * UNITS.get(found["unit"] or "", Fraction(1))
