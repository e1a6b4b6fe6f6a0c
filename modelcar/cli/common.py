"""What several commands do: say something, and find a lock."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from modelcar import progress
from modelcar.errors import InputError, refuse
from modelcar.lock import Lock, lock_path
from modelcar.lock_reader import read_lock


def say(line: str) -> None:
    """Print a result."""
    progress.say(line)


def note(line: str) -> None:
    """Print what is no result: progress, warnings, what is wrong."""
    progress.say(line, sys.stderr)


def locked(options: argparse.Namespace, name: str) -> Lock:
    """Return the lock that a command names: a model's, or a file."""
    path = Path(name)
    return read_lock(path if path.name.endswith(".lock") else lock_path(options.project, name))


def not_fetched(lock: Lock) -> InputError:
    """Return the error for a model whose layers are not on this machine."""
    fix = f"python -m modelcar fetch {lock.name}"
    return refuse(lock.name, "not fetched", allowed="a fetched model", fix=fix)


def say_origins(origins: Mapping[str, str]) -> None:
    """Tell where each layer came from."""
    for digest, origin in origins.items():
        note(f"{digest}: {origin}")
