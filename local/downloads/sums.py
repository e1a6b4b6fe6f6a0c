"""The SHA-256 of a file, out of what its maker publishes beside it."""

from __future__ import annotations

import json
import re
from typing import Any

_SUM = re.compile(r"[0-9a-f]{64}")


def sha256_in(text: str, name: str) -> str | None:
    """Return the SHA-256 of a file in a checksum file, None where that does not say it.

    The formats: lines of sha256sum (`SUM  NAME`, `SUM *NAME`); the sum alone; an in-toto statement, whose
    subjects have names and digests.

    Args:
        text: of the checksum file.
        name: of the file, without folders.
    """
    if text.lstrip().startswith("{"):
        found = _subjects(text, name)
    else:
        lines = [line.split() for line in text.splitlines() if line.strip()]
        found = {words[0] for words in lines if len(words) == 2 and _base(words[1]) == name}
        if len(lines) == 1 and len(lines[0]) == 1:
            found = {lines[0][0]}
    sums = {value.lower() for value in found}
    only = next(iter(sums)) if len(sums) == 1 else ""  # two sums of one file say nothing
    return only if _SUM.fullmatch(only) else None


def _base(name: str) -> str:
    return name.removeprefix("*").removeprefix("./")


def _subjects(text: str, name: str) -> set[str]:
    try:
        statement: Any = json.loads(text)
        subjects = statement["subject"]
        return {str(one["digest"]["sha256"]) for one in subjects if _base(str(one["name"])) == name}
    except (ValueError, LookupError, TypeError):
        return set()
