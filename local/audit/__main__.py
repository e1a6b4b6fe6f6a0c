"""`python -m local.audit`: every scanner; 1 where something is found that is not accepted.

The same tree has the same result: the advisories of today, which may be new, only count with --fresh. So does
what was not looked at: programs that are not built, and packages that the index has no advisories of.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Protocol

from local.audit import accepted_go, findings, go, manifests, python
from local.failed_command import in_words
from local.tool_list import Progress
from modelcar.errors import InputError
from modelcar.progress import say


class Scan(Protocol):
    """A scanner; progress takes what it has to say beside its findings."""

    def __call__(self, progress: Progress, *, fresh: bool = False) -> Iterator[findings.Finding]:
        """Yield the findings."""


SCANNERS: dict[str, Scan] = {manifests.NAME: manifests.scan, python.NAME: python.scan, go.NAME: go.scan}
#: What these find depends on the day.
OF_TODAY = frozenset({python.NAME})


def main() -> int:
    """Run the scanners, and say what is found, what of it is accepted, and what was not looked at."""
    parser = argparse.ArgumentParser(prog="python -m local.audit", description=__doc__)
    parser.add_argument("scanner", nargs="*", choices=[[], *SCANNERS], help="all where none is named")
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="with the advisories of today: they count, and so does what cannot be looked at",
    )
    parser.add_argument(
        "--build", action="store_true", help="first build or download the programs that are not here yet"
    )
    parser.add_argument(
        "--write-go",
        nargs="*",
        metavar="PROGRAM",
        help="scan nothing else, and write what these programs hold (all that are built here, where none is "
        f"named) to {accepted_go.ACCEPTED.name}; builds each of them with its symbols",
    )
    options = parser.parse_args()
    found: list[findings.Finding] = []
    try:
        if options.write_go is not None:
            go.write_accepted(options.write_go, _say)
            return 0
        if options.build:
            go.build(_say)
        known = [*findings.accepted(), *accepted_go.read().accepted()]
        for name in options.scanner or list(SCANNERS):
            started, before = time.monotonic(), len(found)
            found += SCANNERS[name](_say, fresh=options.fresh)
            _say(f"{name}: {len(found) - before} found in {time.monotonic() - started:.0f} s")
    except (InputError, RuntimeError, subprocess.CalledProcessError) as error:
        print(f"error: {in_words(error)}", file=sys.stderr)
        return 1
    judged = list(findings.judge(found, known))
    bad = 0
    for finding, entry in judged:
        if entry is None:
            counts = options.fresh or finding.scanner not in OF_TODAY
            bad += counts
            _say(
                f"{'' if counts else 'NOTE: '}{finding.scanner} {finding.id}, {finding.where}: {finding.text}"
            )
    stands = sum(entry is not None for _, entry in judged)
    _say(f"{bad} found, and {stands} that are accepted with a reason (local/audit/)")
    return 1 if bad else 0


def _say(line: str) -> None:
    say(f"   {line}")


if __name__ == "__main__":
    sys.exit(main())
