"""Which `pulumi config` command changes a setting of a stack, or of one of its models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelcar.errors import refuse


def change(
    settings: Mapping[str, Any], key: str, value: Sequence[str], model: str | None, *, of_one: bool = False
) -> list[str]:
    """Return the arguments of `pulumi config`.

    Args:
        settings: as the stack's file has them.
        key: of the setting.
        value: the new one; none where the setting is to go.
        model: whose; of all models where None.
        of_one: a model has to be named where the stack has a list.

    Raises:
        InputError: there is no such model, or none is named where one has to be.
    """
    command = "set" if value else "rm"
    listed = settings.get("models")
    if not listed:
        if model is not None and model != settings.get("serviceName", model):
            raise refuse("--model", model, allowed="nothing: the stack has one model", fix="leave it out")
        return [command, f"modelcar:{key}", *value]
    names = [str(entry.get("name")) for entry in listed]
    if model is None and not of_one:
        return [command, f"modelcar:{key}", *value]
    if model not in names:
        found = (
            f"{model}: the stack has no such model" if model else "not said, and the stack has several models"
        )
        raise refuse("--model", found, allowed=", ".join(names), fix=f'ARGS="--model {names[0]}"')
    return [command, "--path", f"modelcar:models[{names.index(model)}].{key}", *value]
