"""Made-up input, thousands of cases: the property tests of the unit tier, with a seed of the campaign's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from local.instance import PROJECT

TESTS = "tests/unit/test_bad_input_properties.py"


def try_inputs(seed: int, examples: int, kept: Path) -> dict[str, Any]:
    """Run the property tests, or return what they found before.

    Args:
        seed: of what is made up.
        examples: of each property.
        kept: file for the result.

    Returns:
        `cases`: how many, by property; `failed`: what pytest said of one that failed, or why it tried none;
        empty where all passed.
    """
    if not examples:
        return {"examples": 0, "cases": {}, "failed": ""}
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        if found["cases"]:  # else it is of a version that took a run of no tests for a good one
            return found
    kept.parent.mkdir(parents=True, exist_ok=True)
    counts = kept.with_suffix(".tried")
    counts.unlink(missing_ok=True)  # of a run before
    command = [sys.executable, "-m", "pytest", "-q", TESTS, f"--hypothesis-seed={seed}", "--timeout=3600"]
    variables = {**os.environ, "MODELCAR_EXAMPLES": str(examples), "MODELCAR_TRIED": str(counts)}
    result = subprocess.run(command, cwd=PROJECT, env=variables, capture_output=True, text=True, check=False)
    cases = json.loads(counts.read_text()) if counts.exists() else {}
    failed = ""
    if result.returncode or not cases:  # where pytest itself is wrong, it says so on standard error
        ended = f"pytest ended with {result.returncode} after {sum(cases.values())} cases"
        failed = f"{(result.stdout + result.stderr).strip()[-3000:]}\n{ended}".strip()
    found = {"examples": examples, "cases": cases, "failed": failed}
    if not found["failed"]:
        kept.write_text(json.dumps(found, indent=1) + "\n")
    return found


def report(found: dict[str, Any]) -> list[str]:
    """Return the result as Markdown."""
    number, end = sum(found["cases"].values()), "not all well" if found["failed"] else "none failed"
    lines = [f"Made-up input: {number} cases, {end}."]
    lines += ["", "| property | cases |", "|---|--:|"]
    lines += [
        f"| {name.removeprefix('test_').replace('_', ' ')} | {n} |" for name, n in found["cases"].items()
    ]
    return lines + (["", "```", found["failed"], "```"] if found["failed"] else [])
