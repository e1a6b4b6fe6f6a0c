"""`modelcar:promoteFrom`: another stack of this program, whose registry has this stack's layers already.

It stands for what `modelcar:mirrors` would say: the repositories of the same models there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pulumi

from components.config.checks.image import mirrors_beside_builder
from components.config.problems import problem
from components.config.settings import Settings
from components.stack import other_stack
from components.stack.output_schema import ModelOutputs, StackOutputs
from components.stack.preflight import CheckedStack
from components.stack.stack_reader import parse
from modelcar.base import read_base
from modelcar.errors import InputError, Problem
from modelcar.image import modelcar_image
from modelcar.lock import Lock

KEY = "promoteFrom"


async def resolved(checked: CheckedStack) -> CheckedStack:
    """Return the same stack, with the other stack's repositories as each model's first mirrors.

    A preview works without that stack too, and says so.

    Raises:
        InputError: there is no such stack, it was never deployed, or its repositories cannot be used here.
    """
    name = checked.stack.shared.promote_from
    if name is None:
        return checked
    try:
        found = parse(name, await other_stack.outputs(name))
    except pulumi.RunError as error:
        if pulumi.runtime.is_dry_run():
            pulumi.log.warn(f"modelcar:{KEY}: not read, so this preview knows no layers of it: {error}")
            return checked
        allowed = "a deployed stack of this program, in this backend"
        fix = f"see `pulumi stack ls`; or name repositories in modelcar:mirrors, and take {KEY} out"
        raise InputError([problem(KEY, f"{name}: {error}", allowed, fix)]) from None
    models: list[Settings] = []
    problems: list[Problem] = []
    for settings in checked.stack.models:
        if settings.image:  # it is served as it is, wherever that is
            models.append(settings)
            continue
        lock = checked.locks[settings.key]
        there = list(same_models(settings, lock, found))
        _tell(settings, lock, name, there)
        mirrors = dict.fromkeys([*(repository_of(model) for model in there), *settings.mirrors])
        settings = settings.model_copy(update={"mirrors": tuple(mirrors)})
        if fault := mirrors_beside_builder(settings, KEY):
            problems.append(fault)
        models.append(settings)
    if problems:
        raise InputError(dict.fromkeys(problems))
    return replace(checked, stack=replace(checked.stack, models=tuple(models)))


def same_models(settings: Settings, lock: Lock | None, found: StackOutputs) -> Iterator[ModelOutputs]:
    """Yield what another stack serves of a model: by the same lock, then by one of the model's names."""
    chosen = {name for name, model in found.models.items() if lock and model.lock_digest == lock.digest}
    yield from (found.models[name] for name in sorted(chosen))
    for name in dict.fromkeys((settings.key, *settings.former_names)):
        if name in found.models and name not in chosen:
            yield found.models[name]


def repository_of(model: ModelOutputs) -> str:
    """Return the repository of a model's image, as `modelcar:mirrors` names it."""
    return model.storage_uri.removeprefix("oci://").partition("@")[0]


def _tell(settings: Settings, lock: Lock | None, name: str, there: list[ModelOutputs]) -> None:
    """Say whether what is promoted is what the other stack serves."""
    key = settings.key
    if not there:
        pulumi.log.warn(
            f"modelcar:{KEY}: {name} has no model {key}, and none of its lock: its layers come from elsewhere"
        )
        return
    if lock is None or settings.rollback_to:
        return
    digest = modelcar_image(lock, read_base(settings.architecture)).digest
    if not any(model.model_digest == digest for model in there):
        served = ", ".join(dict.fromkeys(model.model_digest for model in there))
        pulumi.log.warn(
            f"modelcar:{KEY}: {name} serves {served} of {key}, and this stack's lock says {digest}: "
            "what is promoted is not what that stack serves"
        )
