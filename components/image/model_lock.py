"""The lock of a model: what is delivered, and how large it is."""

from __future__ import annotations

from pathlib import Path

import pulumi

from components.config.checks.fit import doubts, unfit
from components.config.known_model import KnownModel
from components.config.settings import Settings
from modelcar.errors import InputError, refuse
from modelcar.lock import Lock, changed_files
from modelcar.lock_reader import read_lock
from modelcar.paths import printable


def model_lock(settings: Settings, project: Path) -> Lock | None:
    """Return the lock of a model; None in a preview before there is one.

    Raises:
        InputError: the lock is missing or wrong, the server's arguments do not fit the model, or it is none
            that a builder can fetch where one is to.
    """
    path = project / settings.lock_path
    if not path.exists():
        _without_lock(settings, path)
        return None
    lock = read_lock(path)
    if problems := list(unfit(settings, KnownModel.of(lock, path.parent))):
        raise InputError(problems)
    if settings.fetch_on == "builder":
        from modelcar.builder_push import (
            fault_for_builder,
        )  # with a client of registries, which takes its time

        if fault := fault_for_builder(lock):
            raise refuse("modelcar:fetchOn", f"builder: {fault[0]}", allowed=fault[1], fix=fault[2])
    if changed := changed_files(lock, project):
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        pulumi.log.warn(
            f"{printable(changed[0])}{more} changed since {lock.name} was locked. What was locked is "
            f"delivered; for the change: python -m modelcar lock {lock.name}"
        )
    return lock


def model_doubts(settings: Settings, lock: Lock | None, project: Path) -> tuple[str, ...]:
    """Return what a reviewer should know of a model and its server's arguments."""
    if lock is None:
        return ()
    found = doubts(settings, KnownModel.of(lock, (project / settings.lock_path).parent))
    return tuple(f"{settings.key}: {doubt}" for doubt in found)


def _without_lock(settings: Settings, path: Path) -> None:
    fix = f"python -m modelcar lock {path.parent.name}   (modelcar/models/README.md)"
    if not pulumi.runtime.is_dry_run():
        raise refuse(
            "modelcar:model", f"{settings.model}: {path} is not there", allowed="a locked model", fix=fix
        )
    pulumi.log.warn(
        f"{settings.model} has no lock yet, so this preview knows neither the image's digest nor whether the "
        f"model fits the nodes' disk. `pulumi up` needs it: {fix}"
    )
