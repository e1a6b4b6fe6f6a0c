"""The known vulnerabilities of Go programs that are accepted, one by one: accepted_go.yaml.

Its entries are written from a scan (`make audit ARGS=--write-go`), its reasons by people. Whether a program
reaches a vulnerability is what govulncheck finds in it with its symbols: the linker kept a function that the
database names (or, where it names none, any of the module).
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from local.audit.findings import Accepted
from local.tool_list import TOOLS
from modelcar import strict_yaml
from modelcar.errors import refuse

ACCEPTED = Path(__file__).parent / "accepted_go.yaml"
#: What is above it in the file is people's, and stays when the entries are written.
HEADING = "vulnerabilities:\n"
WIDTH = 118
_ALLOWED = "reasons, each with its programs, and vulnerabilities, each once with the programs that hold it"
_FIX = "correct the reasons by hand, and write the entries again: make audit ARGS=--write-go"


class Reach(StrEnum):
    """Whether a program holds vulnerable code of a module that it is built with."""

    YES = "reached"
    NO = "not_reached"
    NOT_KNOWN = "not_known"


@dataclass(frozen=True)
class Reason:
    """Why vulnerabilities of some programs stand: all of them, or those with some ids."""

    text: str
    programs: tuple[str, ...]
    ids: tuple[str, ...] = ()

    def fits(self, id: str, program: str) -> bool:
        """Tell whether this is one of them."""
        return program in self.programs and (not self.ids or id in self.ids)


@dataclass(frozen=True)
class Vulnerability:
    """One that is accepted: about says what it is, programs who holds it."""

    id: str
    about: str
    programs: Mapping[str, Reach]


@dataclass(frozen=True)
class File:
    """What the file holds. The reasons of some ids come first."""

    reasons: Sequence[Reason]
    vulnerabilities: Sequence[Vulnerability]

    def accepted(self) -> list[Accepted]:
        """Return its entries as findings are judged by, one for each vulnerability and program."""
        return [
            Accepted((one.id,), (program,), reason.text)
            for one in self.vulnerabilities
            for program in one.programs
            for reason in [next(reason for reason in self.reasons if reason.fits(one.id, program))]
        ]

    def of(self, program: str) -> set[str]:
        """Return the ids that are accepted of a program."""
        return {one.id for one in self.vulnerabilities if program in one.programs}


def read(path: Path = ACCEPTED) -> File:
    """Return what is accepted.

    Raises:
        InputError: the file is of another form; an id is there twice; a program is unknown, is in two lists
            of an entry, or has no reason.
    """
    document: Any = strict_yaml.read(path, _ALLOWED, _FIX)

    def wrong(what: str) -> Exception:
        return refuse(str(path), what[:200], allowed=_ALLOWED, fix=_FIX)

    if not isinstance(document, dict) or document.keys() != {"reasons", "vulnerabilities"}:
        raise wrong(repr(document))
    reasons = [_reason(row, wrong) for row in document["reasons"] or []]
    reasons.sort(key=lambda reason: not reason.ids)
    found: dict[str, Vulnerability] = {}
    for row in document["vulnerabilities"] or []:
        one = _vulnerability(row, wrong)
        if one.id in found:
            raise wrong(f"{one.id} twice")
        for program in one.programs:
            if not any(reason.fits(one.id, program) for reason in reasons):
                raise wrong(f"{one.id}: no reason for {program}")
        found[one.id] = one
    return File(reasons, list(found.values()))


def _reason(row: Any, wrong: Any) -> Reason:
    keys = row.keys() if isinstance(row, dict) else set()
    if not {"reason", "programs"} <= keys <= {"reason", "programs", "ids"} or not all(row.values()):
        raise wrong(repr(row))
    return Reason(str(row["reason"]), _programs(row["programs"], wrong), tuple(row.get("ids", ())))


def _vulnerability(row: Any, wrong: Any) -> Vulnerability:
    keys = row.keys() if isinstance(row, dict) else set()
    if not {"id", "about"} < keys <= {"id", "about", *Reach} or not all(row.values()):
        raise wrong(repr(row))
    held = [(program, reach) for reach in Reach for program in _programs(row.get(reach, []), wrong)]
    if len(dict(held)) != len(held):
        raise wrong(f"{row['id']}: a program twice")
    return Vulnerability(str(row["id"]), str(row["about"]), dict(held))


def _programs(names: Any, wrong: Any) -> tuple[str, ...]:
    if not isinstance(names, list) or not {tool.name for tool in TOOLS}.issuperset(names):
        raise wrong(f"{names!r}: programs of local/tool_list.py")
    return tuple(names)


def renewed(
    former: Iterable[Vulnerability], scanned: Mapping[str, Mapping[str, tuple[str, Reach]]]
) -> list[Vulnerability]:
    """Return the entries after a scan: of the programs that were scanned all that was found, and no other.

    Args:
        former: the entries until now; what they say of programs that were not scanned stays.
        scanned: for each program what was found, by id: what it is about, and whether it is reached.
    """
    about = {one.id: one.about for one in former}
    held = {
        one.id: {name: reach for name, reach in one.programs.items() if name not in scanned} for one in former
    }
    for program, found in scanned.items():
        for id, (text, reach) in found.items():
            about[id] = text
            held.setdefault(id, {})[program] = reach
    return [Vulnerability(id, about[id], held[id]) for id in sorted(held) if held[id]]


def write(vulnerabilities: Iterable[Vulnerability], path: Path = ACCEPTED) -> None:
    """Write the entries below the reasons, which stay as they are."""
    people, _, _ = path.read_text().partition(HEADING)
    path.write_text(people + HEADING + "".join(map(_rendered, vulnerabilities)))


def _rendered(one: Vulnerability) -> str:
    about = textwrap.shorten(one.about, WIDTH - 20, placeholder=" …").replace("'", "''")
    lines = [f"  - id: {one.id}", f"    about: '{about}'"]
    for reach in Reach:
        names = sorted(name for name, its in one.programs.items() if its is reach)
        if names:
            lines += _wrapped(f"    {reach}: [{', '.join(names)}]", 6)
    return "\n".join(lines) + "\n"


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )
