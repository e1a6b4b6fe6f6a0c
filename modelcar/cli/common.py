"""What several commands do: say something, find a lock, and read the name of a repository."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from modelcar import progress
from modelcar.errors import InputError, refuse
from modelcar.lock import Lock, lock_path
from modelcar.lock_reader import read_lock
from modelcar.mirror_names import ALLOWED, fault_of_repository
from modelcar.registry import Target


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


def repository(options: argparse.Namespace) -> Target:
    """Return the repository that a command sends to: HOST[:PORT]/PATH, or the same as a storage URI has it.

    Raises:
        InputError: it is no such name. It is not shown, as an address may have credentials.
    """
    name = str(options.repository).removeprefix("oci://").removeprefix("docker://")
    if fault := fault_of_repository(name):
        raise refuse("REPOSITORY", fault[0], allowed=ALLOWED, fix=fault[1])
    registry, _, last = name.rpartition("/")
    return Target(registry, last, options.insecure)


def note_unused(options: argparse.Namespace) -> None:
    """Tell of options that another one is missing for."""
    if options.from_insecure and not options.mirrors:
        note("note: --from-insecure has no effect without --from")
    if getattr(options, "builder", options) is None and options.endpoint:
        note("note: --endpoint has no effect without --builder: only a builder fetches from the hub here")


def not_fetched(lock: Lock) -> InputError:
    """Return the error for a model whose layers are not on this machine."""
    fix = f"python -m modelcar fetch {lock.name}"
    return refuse(lock.name, "not fetched", allowed="a fetched model", fix=fix)


def say_origins(origins: Mapping[str, str]) -> None:
    """Tell where each layer came from."""
    for digest, origin in origins.items():
        note(f"{digest}: {origin}")
