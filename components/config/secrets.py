"""Which settings came as Pulumi secrets (`pulumi config set --secret`), and where those may go."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from modelcar.errors import InputError, Problem

#: Settings of a model that its pods are declared with; in the state they are secret where one of them is.
OF_SERVER = frozenset({"serverArgs", "serverCommand", "serverEnv"})
#: Keys whose secrets stand in the pods' declaration. Pulumi says of a list that there is a secret in it, and
#: not where.
IN_PODS = frozenset({*OF_SERVER, "models"})
#: All keys that stay secret in the state.
KEPT = frozenset({*IN_PODS, "kubeconfig", "registryPassword", "registryUsername"})

HIDDEN = "[secret]"
#: A shorter text is a part of too many others.
_SHORTEST = 6


@dataclass(frozen=True)
class Secrets:
    """What a stack was told as a secret.

    keys: of its settings, without the namespace.
    texts: what must not be shown.
    """

    keys: frozenset[str] = frozenset()
    texts: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, own: Mapping[str, str], keys: Collection[str]) -> Secrets:
        """Take them from a stack's values.

        Args:
            own: all of them, as texts, by key.
            keys: those that are secrets.
        """
        found = frozenset(keys) & own.keys()
        texts = {text for key in found for text in _texts(key, own[key])}
        # As messages quote them, too.
        texts |= {quoted[1:-1] for text in texts for quoted in (repr(text), json.dumps(text))}
        return cls(found, tuple(sorted(texts, key=len, reverse=True)))

    @property
    def in_pods(self) -> list[str]:
        """Keys whose secrets stand in the pods' declaration."""
        return sorted(self.keys & IN_PODS)

    def hide(self, text: str) -> str:
        """Return a text without any secret in it."""
        for secret in self.texts:
            text = text.replace(secret, HIDDEN)
        return text

    def hide_all(self, document: Any) -> Any:
        """Return a document without any secret in its texts, before JSON escapes what is in them."""
        if isinstance(document, str):
            return self.hide(document)
        if isinstance(document, Mapping):
            return {key: self.hide_all(value) for key, value in document.items()}
        if isinstance(document, list | tuple):
            return [self.hide_all(value) for value in document]
        return document

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Let problems with settings pass that show no secret.

        Raises:
            InputError: the same one, where a setting is wrong.
        """
        try:
            yield
        except InputError as error:
            if not self.texts:
                raise
            raise InputError([self._hide_in(problem) for problem in error.problems]) from None

    def _hide_in(self, problem: Problem) -> Problem:
        return replace(
            problem, **{name: self.hide(str(value)) for name, value in vars(problem).items() if name != "key"}
        )


def _texts(key: str, text: str) -> Iterator[str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    listed = isinstance(value, list) and all(isinstance(entry, dict) for entry in value)
    if key == "models" and listed:
        value = [entry.get(name) for entry in value for name in sorted(OF_SERVER)]
    elif not isinstance(value, dict | list):
        value = text
    for leaf in _leaves(value):
        # NAME=VALUE, --option=VALUE
        yield from (part for part in (leaf, leaf.partition("=")[2]) if len(part) >= _SHORTEST)


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for entry in value:
            yield from _leaves(entry)
    elif value is not None and not isinstance(value, bool):
        yield str(value)
