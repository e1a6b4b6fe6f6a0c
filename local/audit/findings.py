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
    """Findings that stand, with the reason.

    ids: the scanner's. where: as findings have it, or `*` for all places.
    """

    ids: tuple[str, ...]
    where: tuple[str, ...]
    reason: str

    def fits(self, finding: Finding) -> bool:
        """Tell whether this is one of them."""
        return finding.id in self.ids and ("*" in self.where or finding.where in self.where)


def accepted(path: Path = ACCEPTED) -> list[Accepted]:
    """Return what is accepted.

    Raises:
        InputError: the file is not a list of entries with id, where and reason.
    """
    allowed, fix = (
        "a list of entries with id, where and reason; the first two may be lists",
        "correct the entry",
    )
    document: Any = strict_yaml.read(path, allowed, fix)
    found = []
    for entry in document or []:
        keys = entry.keys() if isinstance(entry, dict) else set()
        if keys != {"id", "where", "reason"} or not all(entry.values()):
            raise refuse(str(path), repr(entry)[:200], allowed=allowed, fix=fix)
        found.append(Accepted(_several(entry["id"]), _several(entry["where"]), str(entry["reason"])))
    return found


def _several(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else (str(value),)


def judge(
    findings: Iterable[Finding], known: Sequence[Accepted]
) -> Iterator[tuple[Finding, Accepted | None]]:
    """Yield each finding once, with the entry that accepts it."""
    for finding in sorted(set(findings), key=lambda one: (one.scanner, one.id, one.where)):
        yield finding, next((one for one in known if one.fits(finding)), None)
