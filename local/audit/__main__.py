"""`python -m local.audit`: every scanner; 1 where something is found that is not accepted."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator

from local.audit import findings, go, manifests, python
from local.tools import Progress
from modelcar.errors import InputError

SCANNERS: dict[str, Callable[[Progress], Iterator[findings.Finding]]] = {
    manifests.NAME: manifests.scan,
    python.NAME: python.scan,
    go.NAME: go.scan,
}


def main() -> int:
    """Run the scanners, and say what is found, what of it is accepted, and what was not looked at."""
    parser = argparse.ArgumentParser(prog="python -m local.audit", description=__doc__)
    parser.add_argument("scanner", nargs="*", choices=[[], *SCANNERS], help="all where none is named")
    chosen = parser.parse_args().scanner or list(SCANNERS)
    found: list[findings.Finding] = []
    try:
        known = findings.accepted()
        for name in chosen:
            started, before = time.monotonic(), len(found)
            found += SCANNERS[name](_say)
            _say(f"{name}: {len(found) - before} found in {time.monotonic() - started:.0f} s")
    except (InputError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    judged = list(findings.judge(found, known))
    for finding, entry in judged:
        if entry is None:
            _say(f"{finding.scanner} {finding.id}, {finding.where}: {finding.text}")
    bad = sum(entry is None for _, entry in judged)
    _say(f"{bad} found, and {len(judged) - bad} that are accepted with a reason ({findings.ACCEPTED.name})")
    return 1 if bad else 0


def _say(line: str) -> None:
    print(f"   {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
