"""What has to be true before a version is built. All that is wrong is told at once."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator

from local.release.repository import Repository
from local.release.versions import Version, of_tags
from modelcar.errors import InputError, Problem

CHANGELOG = "CHANGELOG.md"
STATES = "tests/fixtures/states"
#: Lines of a failed `make check` that are shown.
LAST_LINES = 15
#: What `make release` hands on to programs, and a `make` below it would take as its own.
OF_MAKE = frozenset({"ARGS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "VERSION"})
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def require(repository: Repository, version: Version) -> str:
    """Check all that takes no time, then `make check`; return the commit that was checked.

    Raises:
        InputError: something is not ready, with every problem, the fix for each; or it changed meanwhile.
    """
    head = repository.head
    problems = [
        *_tree(repository),
        *_newer(repository, version, head),
        *_told(repository, version),
        *_state(repository, version),
    ]
    if problems:
        raise InputError(problems)
    if problems := [*_static(repository)]:
        raise InputError(problems)
    if problems := [*_moved(repository, head), *_tree(repository)]:
        raise InputError(problems)
    return head


def notes(changelog: str, version: Version) -> str | None:
    """Return what the changelog says of a version, without its heading; None where it has no section."""
    found = _section(changelog, version)
    return found[1].strip() if found else None


def _section(changelog: str, version: Version) -> tuple[str, str] | None:
    """Return the date of a version's section, and its text."""
    heading = rf"(?ms)^## {re.escape(str(version))}(?: \(([^)\n]*)\))?[ ]*\n(.*?)(?=^## |\Z)"
    found = re.search(heading, changelog)
    return (found[1] or "", found[2]) if found else None


def _tree(repository: Repository) -> Iterator[Problem]:
    changes = repository.changes()
    if changes:
        shown = ", ".join(line[3:] for line in changes[:5]) + (", …" if len(changes) > 5 else "")
        yield Problem(
            "working tree",
            f"{len(changes)} changes: {shown}",
            "a clean one: what is released is what is committed",
            "commit them, or put them away: git stash --include-untracked",
        )


def _moved(repository: Repository, head: str) -> Iterator[Problem]:
    if (now := repository.head) != head:
        yield Problem(
            "HEAD",
            f"{now[:12]}, and {head[:12]} was checked",
            "the same commit until it is released",
            "run the command again, which checks the new one; commit nothing here meanwhile",
        )


def _newer(repository: Repository, version: Version, head: str) -> Iterator[Problem]:
    tagged = of_tags(repository.tags())
    # A fix for a former minor version is older than what came after it.
    line = [one for one in tagged if one.line == version.line] or tagged
    if line and version.order <= line[-1].order:
        yield Problem(
            "VERSION",
            f"{version}, and the last tag is {line[-1].tag}",
            f"newer than {line[-1]}",
            f"choose the next one; what was released as {line[-1].tag} stays as it is",
        )
    elif line and not any(one.line == line[-1].line for one in of_tags(repository.tags(head))):
        yield Problem(
            "HEAD",
            f"this branch has no release of {line[-1].line}, and there is {line[-1].tag}",
            f"a branch with {line[-1].tag}, or one of its former tags",
            f"git merge {line[-1].tag}, or release from a branch that has it",
        )
    written = repository.written(head)
    base = tuple(int(part) for part in re.findall(r"\d+", written)[:3])
    if (version.major, version.minor, version.patch) < base:
        yield Problem(
            "VERSION",
            f"{version}, and pyproject.toml is at {written}",
            f"{'.'.join(map(str, base))} or newer",
            "choose a newer one, or correct `version` in pyproject.toml",
        )


def _told(repository: Repository, version: Version) -> Iterator[Problem]:
    path = repository.folder / CHANGELOG
    found = _section(path.read_text(), version) if path.is_file() else None
    heading = f"## {version} (YYYY-MM-DD)"
    if found is None:
        yield Problem(
            CHANGELOG,
            f"no section for {version}",
            f"a heading `{heading}`, and below it what changed",
            "write it; what users must do comes first",
        )
        return
    date, text = found
    if not _DATE.fullmatch(date):
        yield Problem(
            f"{CHANGELOG}: {version}",
            f"dated {date!r}" if date else "without a date",
            f"the day of the release: `{heading}`",
            "put the date into the heading, and commit it",
        )
    if not text.strip():
        yield Problem(
            f"{CHANGELOG}: {version}",
            "an empty section",
            "what changed for users",
            "write it; what users must do comes first",
        )


def _state(repository: Repository, version: Version) -> Iterator[Problem]:
    name = f"{STATES}/{version}.json"
    if not (repository.folder / name).is_file():
        yield Problem(
            name,
            "not there",
            "the state of a stack that this version made: later versions are tested with it",
            f"MODELCAR_RECORD_STATE={version} .venv/bin/pytest tests/engine/test_upgrades.py -k record; "
            f"then commit {name}",
        )


def _static(repository: Repository) -> Iterator[Problem]:
    try:
        result = subprocess.run(
            ["make", "check"],
            cwd=repository.folder,
            env={key: value for key, value in os.environ.items() if key not in OF_MAKE},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        yield Problem("make", "not on PATH", "GNU make", "install make")
        return
    if result.returncode:
        last = "\n".join(result.stdout.strip().splitlines()[-LAST_LINES:])
        yield Problem(
            "make check",
            f"exit status {result.returncode}:\n{last}",
            "all static checks pass",
            "run `make check`, and mend what it shows",
        )
