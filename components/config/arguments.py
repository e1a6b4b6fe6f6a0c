"""Problems with settings, told to a program that composes components: by the names of its arguments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from components.config.explain import explained, snake
from components.config.problems import NAMESPACE
from components.config.section import Section
from modelcar.errors import InputError, Problem

S = TypeVar("S", bound=Section)

_KEY = r"[A-Za-z_][\w.\[\]]*"
_COMMAND = re.compile(rf"pulumi config set (?:--\S+ )*{NAMESPACE}:({_KEY}) (\S+)")
_REMOVAL = re.compile(rf"pulumi config rm (?:--\S+ )*{NAMESPACE}:({_KEY})")
_SETTING = re.compile(rf"{NAMESPACE}:({_KEY})")


def as_arguments(problems: Iterable[Problem], names: Mapping[str, str]) -> Iterator[Problem]:
    """Yield the same problems, with the names that a program has for what is wrong.

    Args:
        problems: with settings of a stack.
        names: what the component calls a setting; in snake case where nothing is said.
    """

    def renamed(found: re.Match[str]) -> str:
        return argument(found[1], names)

    def assigned(found: re.Match[str]) -> str:
        return f"set {renamed(found)}" + ("" if found[2] == "…" else f" to {found[2]}")

    def removed(found: re.Match[str]) -> str:
        return f"remove {renamed(found)}"

    for one in problems:
        key = argument(one.key.removeprefix(f"{NAMESPACE}:"), names)
        fix = _SETTING.sub(renamed, _REMOVAL.sub(removed, _COMMAND.sub(assigned, one.fix)))
        yield Problem(key, one.value, _SETTING.sub(renamed, one.allowed), fix)


def validated(section: type[S], values: Mapping[str, Any], names: Mapping[str, str]) -> S:
    """Return settings whose fields are right each; what does not go together is not looked at.

    Args:
        section: which settings.
        values: by field.
        names: as of `as_arguments`.

    Raises:
        modelcar.errors.InputError: with everything that is wrong, by the arguments' names.
    """
    try:
        return section.model_validate(values, by_name=True)
    except ValidationError as error:
        raise InputError(list(as_arguments(explained(error, section), names))) from None


def argument(key: str, names: Mapping[str, str]) -> str:
    """Return the name that a program has for a setting of a stack, which may be said in snake case too."""
    head, dot, rest = key.partition(".")
    name, bracket, place = head.partition("[")
    told = names.get(to_camel(name)) or snake(name)
    return f"{told}{bracket}{place}{dot}{snake(rest)}"
