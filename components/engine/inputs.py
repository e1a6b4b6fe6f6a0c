"""Arguments of components: checked as early as they are known."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import pulumi

from modelcar.errors import InputError, Problem
from modelcar.likely import likely

T = TypeVar("T")


def is_known(value: Any) -> bool:
    """Tell whether an argument is a plain value, which no other resource produces."""
    return not isinstance(value, pulumi.Output | Awaitable)


def checked(value: pulumi.Input[T], check: Callable[[T], None]) -> pulumi.Input[T]:
    """Check an argument at once where it is plain, and else when it is there, with the same words.

    Args:
        value: of the argument.
        check: raises InputError where it is wrong.

    Raises:
        modelcar.errors.InputError: a plain value is wrong.
        pulumi.RunError: (inside of the output) another resource produced a value that is wrong.
    """
    if is_known(value):
        check(value)  # type: ignore[arg-type]
        return value

    def when_known(found: Any) -> T:
        try:
            check(found)
        except InputError as error:
            raise pulumi.RunError(str(error)) from None
        return found  # type: ignore[no-any-return]

    return pulumi.Output.from_input(value).apply(when_known)


class Arguments:
    """Arguments of a component, a dataclass: each plain value is of the type that its annotation says.

    Numbers and words to choose from are left to each component's own checks, which tell them with all else.
    """

    def __post_init__(self) -> None:
        """Refuse values of another type, before anything is declared.

        Raises:
            modelcar.errors.InputError: with everything that is wrong; no value is shown that may be a secret.
        """
        # Pulumi's own Input names two types that its users' modules need not have.
        hints = get_type_hints(type(self), None, {"Output": pulumi.Output, "T": Any})
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        checked = [name for name in values if get_origin(hints[name]) is not Literal]
        if wrong := [name for name in checked if not _fits(values[name], hints[name])]:
            raise InputError(_problem(name, values[name], hints[name]) for name in wrong)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in {Union, types.UnionType} else (hint,)


def _fits(value: Any, hint: Any) -> bool:
    """Tell whether a value is of a type."""
    return any(_is(value, one) for one in _alternatives(hint))


def _is(value: Any, hint: Any) -> bool:
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind is Any:
        return True
    if kind is Literal:
        return value in parts
    if kind in {int, float}:
        return not isinstance(value, bool)
    several: Any = Collection if kind is tuple else kind
    if not isinstance(value, several):
        return False
    if isinstance(value, Mapping) and len(parts) > 1:
        # Labels may be outputs of other resources.
        return all(not is_known(one) or _fits(one, parts[1]) for one in value.values())
    if issubclass(kind, Collection) and parts:
        return not isinstance(value, str | Mapping) and all(_fits(one, parts[0]) for one in value)
    return True


def _problem(name: str, value: Any, hint: Any) -> Problem:
    """Return what is wrong with a value; what may hold a secret is not shown."""
    allowed = " or ".join(dict.fromkeys(filter(None, map(_told, _alternatives(hint)))))
    if bool in _alternatives(hint):
        fix = f"correct {name}; pulumi.Config has get_bool for a stack's configuration"
        return Problem(name, repr(value)[:120], allowed, fix)
    choices = _choices(hint)
    given = value if isinstance(value, Collection) and not isinstance(value, str) else [value]
    if wrong := [one for one in given if choices and one not in choices]:
        close = likely(str(wrong[0]), choices)
        fix = f"did you mean {close}?" if close else "choose one of these"
        return Problem(name, ", ".join(map(repr, wrong))[:120], allowed, fix)
    found = "None" if value is None else f"of type {type(value).__name__}"
    return Problem(name, found, allowed, f"correct {name}")


def _choices(hint: Any) -> tuple[str, ...]:
    """Return the words that a value is one of, or a list of; none where it can be anything else."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind is Literal:
        return parts
    return _choices(parts[0]) if kind is Collection else ()


#: Types, as messages call them.
_CALLED: Mapping[type, str] = {bool: "true or false", str: "a text", Path: "a path", type(None): ""}


def _told(hint: Any) -> str:
    """Return what a type allows, in words."""
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind is Literal:
        return ", ".join(map(str, parts))
    if kind in {Awaitable, pulumi.Output}:
        return "an output of another resource"
    if issubclass(kind, Mapping):
        return f"{_told(parts[1])}, by name"
    if issubclass(kind, Collection) and parts:
        return f"a list of: {_told(parts[0])}"
    return _CALLED.get(kind, str(kind.__name__))
