"""A program that a command ran and that failed, told in words: which one, how it ended, and what it said."""

from __future__ import annotations

import shlex
import subprocess

#: Last lines of what it said that are shown.
LINES = 20


def in_words(error: BaseException) -> str:
    """Return what went wrong; any other error's own words."""
    if not isinstance(error, subprocess.CalledProcessError):
        return str(error) or type(error).__name__
    command = error.cmd if isinstance(error.cmd, str) else shlex.join(map(str, error.cmd))
    code = error.returncode
    ended = f"ended by signal {-code}" if code < 0 else f"exit status {code}"
    said = error.stderr or error.output or ""
    text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
    return "\n  ".join([f"{command}: {ended}", *text.strip().splitlines()[-LINES:]])
