"""Which cases there are for a seed, what became of each, and the report."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tests.campaign.faults import KINDS, Kind

SAME, LOST, MISSED = "same", "lost", "missed"


@dataclass(frozen=True)
class Case:
    """One fault in one operation. moment: part of the operation's time after which it comes, 0 to 1."""

    number: int
    kind: str
    operation: str
    moment: float


@dataclass
class Result:
    """What became of a case.

    verdict: SAME, LOST (something is not as without the fault) or MISSED (no occasion). found: each thing
    that is not the same. ended: status of the operation that the fault hit. recovered: what the tool did and
    said. requests, failed: of the bystander's clients. longest: seconds without an answer.
    """

    case: Case
    verdict: str
    found: list[str] = field(default_factory=list)
    ended: int | None = None
    said: str = ""
    recovered: list[str] = field(default_factory=list)
    requests: int = 0
    failed: int = 0
    longest: float = 0.0
    seconds: float = 0.0


def plan(seed: int, rounds: int) -> list[Case]:
    """Return the cases of a campaign: each kind in each of its operations, once a round, in an order by seed.

    The moments of one kind and operation lie in equal parts of the operation, one round each, so that more
    rounds look at finer steps of it.
    """
    chance = random.Random(seed)
    wanted = [(kind, operation) for kind in KINDS for operation in kind.at]
    parts = {pair: chance.sample(range(rounds), rounds) for pair in wanted}
    cases: list[Case] = []
    for turn in range(rounds):
        order = list(wanted)
        chance.shuffle(order)
        for kind, operation in order:
            moment = (parts[kind, operation][turn] + chance.random()) / rounds
            cases.append(Case(len(cases), kind.name, operation, round(moment, 4)))
    return cases


def kind_of(case: Case) -> Kind:
    """Return the kind of a case."""
    return next(kind for kind in KINDS if kind.name == case.kind)


class Journal:
    """A line for each case that is over."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def results(self) -> list[Result]:
        """Return what is over, in order."""
        if not self.path.exists():
            return []
        found = []
        for line in self.path.read_text().splitlines():
            row: dict[str, Any] = json.loads(line)
            found.append(Result(**{**row, "case": Case(**row["case"])}))
        return found

    def of(self, cases: Sequence[Case]) -> list[Result]:
        """Return what is over of a plan, in order.

        A number alone is none: with another list of faults it stands for another case.
        """
        planned = set(cases)
        return [result for result in self.results() if result.case in planned]

    def take_over(self, report: Path, cases: Sequence[Case]) -> dict[str, Any]:
        """Go on from a report of the same campaign, and return what it says.

        It is another machine's, or of a checkout that is gone.

        Cases that the plan does not have, as of an earlier list of faults, are tried anew.

        Raises:
            ValueError: it is of another campaign.
        """
        document: dict[str, Any] = json.loads(report.read_text())
        planned = set(cases)
        results = [Result(**{**row, "case": Case(**row["case"])}) for row in document["cases"]]
        results = [result for result in results if result.case in planned]
        if not results:
            raise ValueError(f"{report} is of a campaign with other cases")
        known = {result.case for result in self.results()}
        for result in results:
            if result.case not in known:
                self.add(result)
        return document

    def add(self, result: Result) -> None:
        """Keep a result, at once."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(result)) + "\n")


def document(seed: int, planned: int, results: Sequence[Result]) -> dict[str, Any]:
    """Return the report for programs."""
    kinds: dict[str, dict[str, Any]] = {}
    for result in results:
        row = kinds.setdefault(
            result.case.kind,
            {"tried": 0, SAME: 0, LOST: 0, MISSED: 0, "requests": 0, "failed": 0, "seconds": []},
        )
        row["tried"] += result.verdict != MISSED
        row[result.verdict] += 1
        row["requests"] += result.requests
        row["failed"] += result.failed
        row["seconds"].append(result.seconds)
    for row in kinds.values():
        row["seconds"] = round(median(row["seconds"]), 1)
    return {
        "seed": seed,
        "planned": planned,
        "over": len(results),
        "tried": sum(row["tried"] for row in kinds.values()),
        "lost": sum(row[LOST] for row in kinds.values()),
        "kinds": dict(sorted(kinds.items())),
        # What a run said is in the journal: it has the machine's own paths.
        "cases": [{k: v for k, v in asdict(result).items() if k != "said"} for result in results],
    }


def report(found: dict[str, Any]) -> list[str]:
    """Return the report as Markdown."""
    heads = ["fault", "tried", "as if nothing had happened", "lost", "no occasion"]
    heads += ["requests to a served model", "failed", "median, s"]
    lines = [
        f"Seed {found['seed']}: {found['over']} of {found['planned']} cases are over, "
        f"{found['tried']} tried, **{found['lost']} lost**.",
        "",
        f"| {' | '.join(heads)} |",
        "|---" + "|--:" * (len(heads) - 1) + "|",
    ]
    rows = [*found["kinds"].items()]
    keys = ("tried", SAME, LOST, MISSED, "requests", "failed")
    for name, row in rows:
        cells = [*(row[key] for key in keys), row["seconds"]]
        lines.append(f"| {name} | " + " | ".join(map(str, cells)) + " |")
    sums = [sum(row[key] for _, row in rows) for key in keys]
    lines.append("| all | " + " | ".join(map(str, sums)) + " | |")
    lost = [case for case in found["cases"] if case["verdict"] == LOST]
    if lost:
        lines += ["", "Lost:", ""]
    for case in lost:
        what = f"{case['case']['kind']} in {case['case']['operation']} at {case['case']['moment']}"
        lines.append(f"- case {case['case']['number']}, {what}: {'; '.join(case['found'])}")
    return lines
