"""Problems with settings, told to a program that composes components: by the names of its arguments."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel

from components.config.explain import explained, models_in, snake
from components.config.problems import NAMESPACE
from components.config.section import Section
from components.config.settings import Settings
from modelcar.errors import InputError, Problem

S = TypeVar("S", bound=Section)

#: How a program of one's own writes a text that has Python's names of arguments; None: the program is this
#: repository's, which has a stack's settings. The package sets it, and its provider for other languages.
spelled: Callable[[str], str] | None = None

_KEY = r"[A-Za-z_][\w.\[\]]*"
_COMMAND = re.compile(rf"pulumi config set (?:--\S+ )*{NAMESPACE}:({_KEY}) (\S+)")
_REMOVAL = re.compile(rf"pulumi config rm (?:--\S+ )*{NAMESPACE}:({_KEY})")
_SETTING = re.compile(rf"{NAMESPACE}:({_KEY})")
_WORD = re.compile(r"(?<![\w.:/-])[a-z]+(?:[A-Z][a-z0-9]*)+\b")

#: Lines of a message that this program wrote, and no log or API server.
_OURS = re.compile(rf"\s*(?:reason|fix|allowed): |{NAMESPACE}:")


def _words(section: type[BaseModel]) -> Iterator[str]:
    for field in section.model_fields.values():
        yield str(field.alias)
        for inner in models_in(field.annotation):
            yield from _words(inner)


#: Settings of a stack, as messages name them also without the namespace.
_WORDS = frozenset(_words(Settings))


def as_arguments(problems: Iterable[Problem], names: Mapping[str, str]) -> Iterator[Problem]:
    """Yield the same problems, with the names that a program has for what is wrong.

    Args:
        problems: with settings of a stack.
        names: what the component calls a setting; in snake case where nothing is said.
    """

    for one in problems:
        key = argument(one.key.removeprefix(f"{NAMESPACE}:"), names)
        yield Problem(key, one.value, with_arguments(one.allowed, names), with_arguments(one.fix, names))


def with_arguments(text: str, names: Mapping[str, str]) -> str:
    """Return a text of this program with the names that a program has for a stack's settings.

    Args:
        text: that names settings, or commands that set them.
        names: as of `as_arguments`.
    """

    def renamed(found: re.Match[str]) -> str:
        return argument(found[1], names)

    def assigned(found: re.Match[str]) -> str:
        return f"set {renamed(found)}" + ("" if found[2] == "…" else f" to {found[2]}")

    def removed(found: re.Match[str]) -> str:
        return f"remove {renamed(found)}"

    def word(found: re.Match[str]) -> str:
        return argument(found[0], names) if found[0] in _WORDS else found[0]

    told = _SETTING.sub(renamed, _REMOVAL.sub(removed, _COMMAND.sub(assigned, text)))
    return _WORD.sub(word, told)


def in_own_words(text: str, names: Mapping[str, str]) -> str:
    """Return what a run tells of a cluster, with the names that a program of one's own has for settings.

    Args:
        text: several lines; among them may be those of a server's log, which stay.
        names: as of `as_arguments`.
    """
    if spelled is None:
        return text
    told = [
        spelled(with_arguments(line, names)) if number == 0 or _OURS.match(line) else line
        for number, line in enumerate(text.splitlines())
    ]
    return "\n".join(told)


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
