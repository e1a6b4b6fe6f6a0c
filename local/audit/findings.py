"""Findings of the scanners, and those that are accepted, each with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelcar import strict_yaml
from modelcar.errors import refuse

ACCEPTED = Path(__file__).parent / "accepted.yaml"


@dataclass(frozen=True)
class Finding:
    """One thing that a scanner found.

    scanner: checkov, govulncheck or pip-audit. id: the scanner's own (CKV_…, GO-…, PYSEC-…). where: the
    resource, program or package. text: what it is about, in the scanner's words.
    """

    scanner: str
    id: str
    where: str
    text: str


@dataclass(frozen=True)
class Accepted:
    """A finding that stands, with the reason. where: as a finding has it, or `*` for all places."""

    id: str
    where: str
    reason: str


def accepted(path: Path = ACCEPTED) -> list[Accepted]:
    """Return what is accepted.

    Raises:
        InputError: the file is not a list of entries with id, where and reason.
    """
    allowed, fix = "a list of entries with id, where and reason", "correct the entry"
    document: Any = strict_yaml.read(path, allowed, fix)
    found = []
    for entry in document or []:
        if (
            not isinstance(entry, dict)
            or entry.keys() != {"id", "where", "reason"}
            or not all(entry.values())
        ):
            raise refuse(str(path), repr(entry)[:200], allowed=allowed, fix=fix)
        found.append(Accepted(str(entry["id"]), str(entry["where"]), str(entry["reason"])))
    return found


def judge(
    findings: Iterable[Finding], known: Sequence[Accepted]
) -> Iterator[tuple[Finding, Accepted | None]]:
    """Yield each finding once, with the entry that accepts it."""
    for finding in sorted(set(findings), key=lambda one: (one.scanner, one.id, one.where)):
        fits = (one for one in known if one.id == finding.id and one.where in {"*", finding.where})
        yield finding, next(fits, None)
