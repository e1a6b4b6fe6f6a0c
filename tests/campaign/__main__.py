"""`python -m tests.campaign`: try faults on the local platform, keep what became of each, and report."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from local.instance import CAMPAIGN, only_run
from tests.campaign import inputs
from tests.campaign.journal import LOST, Case, Journal, Result, document, plan, report
from tests.campaign.runner import Runner
from tests.campaign.world import World, campaign_folder, say, stop_on_sigterm


class CannotBegin(Exception):
    """The platform or a run without any fault failed, so nothing can be tried; the message says why."""


def main() -> int:
    """Run what is left of the campaign within its bounds; 1 where something was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the cases, their order and moments")
    parser.add_argument(
        "--rounds", type=int, default=1, help="how often each fault is tried in each operation"
    )
    parser.add_argument(
        "--examples", type=int, default=1000, help="of each property of made-up input; 0: none anew"
    )
    parser.add_argument("--minutes", type=float, default=600.0, help="no case begins after so many")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases with this in `FAULT in OPERATION`")
    parser.add_argument("--go-on", type=Path, metavar="FILE", help="campaign.json of what is over already")
    parser.add_argument("--anew", action="store_true", help="forget what is over of a campaign of this seed")
    parser.add_argument(
        "--report", type=Path, metavar="FOLDER", help="of campaign-report.md and campaign.json"
    )
    options = parser.parse_args()
    cases = plan(options.seed, options.rounds)
    wanted = [case for case in cases if options.only in f"{case.kind} in {case.operation}"]
    if not wanted:
        kinds = ", ".join(sorted({case.kind for case in cases}))
        parser.error(f"--only: no case has {options.only!r} in its name; faults are {kinds}")
    journal = Journal(campaign_folder() / f"seed-{options.seed}-rounds-{options.rounds}.jsonl")
    kept = campaign_folder() / f"inputs-{options.seed}-{options.examples}.json"
    if options.anew:
        journal.path.unlink(missing_ok=True)
        kept.unlink(missing_ok=True)
    former: dict[str, Any] = {}
    if options.go_on:
        try:
            former = journal.take_over(options.go_on, cases)
        except (OSError, ValueError) as error:
            parser.error(f"--go-on: {error}")
    if former and not options.examples:
        tried = former["inputs"]
    else:
        tried = inputs.try_inputs(options.seed, options.examples, kept)
    say("\n".join(inputs.report(tried)))
    over = {result.case for result in journal.of(cases)}
    left = [case for case in wanted if case not in over]
    say(f"{len(wanted)} of {len(cases)} cases, {len(wanted) - len(left)} of them over before")
    if left and options.minutes > 0:
        try:
            _run(left, journal, time.monotonic() + options.minutes * 60)
        except KeyboardInterrupt:
            say("interrupted; the same command goes on from here")
        except CannotBegin as error:
            print(f"error: the campaign cannot begin: {error}", file=sys.stderr)
            return 1
    found = {**document(options.seed, len(cases), journal.of(cases)), "inputs": tried}
    lines = ["# Report of a campaign", "", *report(found), "", *inputs.report(tried)]
    say("\n".join(report(found)))
    folder: Path = options.report or campaign_folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "campaign.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / "campaign-report.md").write_text("\n".join(lines) + "\n")
    return 1 if found["lost"] or tried["failed"] else 0


def _run(left: Sequence[Case], journal: Journal, deadline: float) -> None:
    stop_on_sigterm()
    with ExitStack() as held:
        with _in_words():
            held.enter_context(only_run(CAMPAIGN))
        _try(left, journal, deadline)


def _try(left: Sequence[Case], journal: Journal, deadline: float) -> None:
    pending = list(left)
    while pending and time.monotonic() < deadline:
        with _in_words():
            world = World(lambda line: say(f"   {line}"))
        try:
            with _in_words():
                world.start()
                runner = Runner(world)
                runner.learn()
            while pending and not runner.broken and time.monotonic() < deadline:
                result = runner.run(pending.pop(0))
                journal.add(result)
                _tell(result)
        finally:
            world.stop()
    if pending:
        say("   out of time; the same command goes on from here")


@contextmanager
def _in_words() -> Iterator[None]:
    """Raise whatever goes wrong before the first case as CannotBegin."""
    try:
        yield
    except Exception as error:
        raise CannotBegin(f"{type(error).__name__}: {error}") from error


def _tell(result: Result) -> None:
    case, status = result.case, "" if result.ended is None else f", ended with {result.ended}"
    say(
        f"{case.number:4} {case.kind} in {case.operation} at {case.moment:.2f}: {result.verdict} "
        f"({result.seconds:.0f} s{status})"
    )
    for line in [*result.recovered, *(result.found if result.verdict == LOST else [])]:
        say(f"     {line}")


if __name__ == "__main__":
    sys.exit(main())
