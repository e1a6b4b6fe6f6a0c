"""What `validate` found, as a person and as a program reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Line:
    """One line of the report.

    passed: None where it could not be found out. evidence: what was seen. details: the same for programs,
    where it is more than words.
    """

    name: str
    passed: bool | None
    evidence: str
    fix: str = ""
    details: Mapping[str, object] = field(default_factory=dict)


_MARKS = {True: "PASS", False: "FAIL", None: "????"}


def report(lines: tuple[Line, ...]) -> Iterator[str]:
    """Yield the report: a line each, and what to do about those that are not passed."""
    width = max(len(line.name) for line in lines)
    for line in lines:
        yield f"{_MARKS[line.passed]}  {line.name:<{width}}  {line.evidence}"
        if line.fix:
            yield f"      {'':<{width}}  → {line.fix}"


def document(lines: tuple[Line, ...]) -> dict[str, Any]:
    """Return the report for programs. `passed` is null where it could not be found out."""
    return {
        "passed": all(line.passed for line in lines),
        "lines": [
            {
                "name": line.name,
                "passed": line.passed,
                "evidence": line.evidence,
                "fix": line.fix,
                **({"details": dict(line.details)} if line.details else {}),
            }
            for line in lines
        ],
    }
