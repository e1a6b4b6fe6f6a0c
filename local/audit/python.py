"""pip-audit on the committed locks, with the advisories of the Python package index."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from local.audit.findings import Finding
from local.instance import PROJECT
from local.tool_list import Progress
from modelcar.progress import working

NAME = "pip-audit"
#: Id of what is found where nothing is known of a lock, or of some of its packages.
NOT_AUDITED = "not audited"
#: For the advisories of one lock, in seconds.
PATIENCE = 120.0
LOCKS = (
    "requirements.lock",
    "bench/requirements.lock",
    "local/audit/checkov.lock",
    "local/servers/vllm.lock",
    "local/servers/vllm-cuda.lock",
    "local/servers/transformers.lock",
)


def scan(progress: Progress, *, fresh: bool = False) -> Iterator[Finding]:
    """Yield what is known of the locked packages.

    Where the index has no advisories to give it says so; with `fresh`, which asks for them, it is a finding.
    """
    for name in LOCKS:
        for one in _scan_one(PROJECT / name):
            if one.id == NOT_AUDITED and not fresh:
                progress(f"NOT AUDITED: {one.text}")
            else:
                yield one


def _scan_one(lock: Path) -> Iterator[Finding]:
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--requirement",
        str(lock),
        "--disable-pip",
        "--require-hashes",
    ]
    shown = lock.relative_to(PROJECT)
    command += ["--format", "json", "--progress-spinner", "off"]
    try:
        with working(f"   pip-audit {shown}"):
            result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        yield _not_audited(shown, f"{shown}: the index did not answer in {PATIENCE:.0f} s")
        return
    try:
        rows = json.loads(result.stdout)["dependencies"]
    except (ValueError, KeyError):
        said = (result.stderr.strip() or "no answer").splitlines()[-1][:200]
        yield _not_audited(shown, f"{shown}: {said}")
        return
    skipped = [row["name"] for row in rows if "skip_reason" in row]
    if skipped:
        of = f"{len(skipped)} of {len(rows)} packages of {shown}"
        yield _not_audited(shown, f"{of}: the index gives no advisories of them")
    for row in rows:
        for known in row.get("vulns", []):
            fixed = ", ".join(known.get("fix_versions", [])) or "no version"
            text = (
                f"{row['name']} {row.get('version')}, mended in {fixed}: {known.get('description', '')[:120]}"
            )
            yield Finding(NAME, known["id"], row["name"], " ".join(text.split()))


def _not_audited(lock: Path, text: str) -> Finding:
    return Finding(NAME, NOT_AUDITED, str(lock), text)
