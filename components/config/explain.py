"""Findings of pydantic, in this project's words: the key, the value, what is allowed, and the fix."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator
from functools import partial
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from components.config.fields import SERVICE, Refused
from components.config.problems import NAMESPACE, problem
from components.config.secrets import OF_SERVER
from modelcar.errors import Problem

#: Keys whose values may hold secrets; they are never shown.
_HIDDEN = frozenset({*OF_SERVER, "kubeconfig", "registryPassword"})
#: An address with a user or a password. What stands before a digest is none.
_CREDENTIALS = re.compile(r"//[^\s'\"]*@(?!sha256:)")

#: What is allowed for a setting that has to be there, and what it is set to.
_REQUIRED = {
    "model": (
        "a locked model (a folder of modelcar/models, or a model.lock's path), or modelcar:image by digest",
        "NAME (`python -m modelcar lock NAME --hub OWNER/NAME` makes one)",
    ),
    "namespace": ("the namespace that the model is served in", "NAME"),
    "registry": ("HOST[:PORT]/PATH that modelcars are pushed to", "…"),
    "serverImage": ("the model server's image, by digest", "…"),
    "serviceName": (f"a match of {SERVICE.pattern}; the model's name does not make one", "NAME"),
}


def explained(
    error: ValidationError, model: type[BaseModel], owner: str = "", secret: Collection[str] = ()
) -> Iterator[Problem]:
    """Yield what is wrong with what a model was made of.

    Args:
        error: that pydantic raised.
        model: that was to be made.
        owner: class that a program makes by Python's names; empty for keys of a stack.
        secret: keys whose values are not shown, beside those that never are.
    """
    for found in error.errors():
        cause = found.get("ctx", {}).get("error")
        location = (
            tuple(snake(part) if isinstance(part, str) else part for part in found["loc"])
            if owner
            else found["loc"]
        )
        key = _path(location) or "settings"
        hidden = bool(found["loc"]) and found["loc"][0] in {*_HIDDEN, *secret}
        shown = "not shown: it may hold secrets" if hidden else _shown(found["input"])
        told = partial(_told, key, owner)
        if isinstance(cause, Refused):
            yield told(f"{shown}: {cause.why}", cause.allowed, cause.fix)
        elif found["type"] == "extra_forbidden":
            names = _names(model, found["loc"], by_name=bool(owner))
            close = difflib.get_close_matches(str(found["loc"][-1]), names, n=1, cutoff=0.6)
            fix = f"did you mean {close[0]}?" if close else "remove it"
            yield told("unknown key", ", ".join(names), fix)
        elif found["type"] == "missing":
            path = "--path " if "." in key else ""
            allowed, meant = _REQUIRED.get(key, ("a value: it has no default", "…"))
            fix = f"set {key}" if owner else f"pulumi config set {path}{NAMESPACE}:{key} {meant}"
            yield told("not set", allowed, fix)
        elif found["type"] == "literal_error":
            allowed = str(found["ctx"]["expected"])
            choices = re.findall(r"'([^']+)'", allowed)
            close = difflib.get_close_matches(str(found["input"]), choices, n=1, cutoff=0.4)
            fix = f"did you mean {close[0]}?" if close else "choose one of these"
            yield told(shown, allowed, fix)
        else:
            yield told(shown, found["msg"], f"correct {owner or NAMESPACE}{'.' if owner else ':'}{key}")


def _shown(value: Any) -> str:
    text = repr(value)
    return "not shown" if _CREDENTIALS.search(text) else text[:120]


def _told(key: str, owner: str, value: str, allowed: str, fix: str) -> Problem:
    return Problem(f"{owner}.{key}", value, allowed, fix) if owner else problem(key, value, allowed, fix)


def snake(text: str) -> str:
    """Return a key of a stack by the name that Python has for it."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", text).lower()


def _path(location: tuple[int | str, ...]) -> str:
    """Return a place in the settings as `pulumi config --path` takes it."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def _names(model: type[BaseModel], location: tuple[int | str, ...], *, by_name: bool) -> list[str]:
    """Return the keys of the section that an unknown key stands in."""
    for part in location[:-1]:
        if isinstance(part, str):  # a number is a place in a list, and says nothing of what the list holds
            field = next(field for field in model.model_fields.values() if field.alias == part)
            model = next(_models_in(field.annotation))
    return sorted(name if by_name else str(field.alias) for name, field in model.model_fields.items())


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the sections that an annotation is made of: `Nodes | None`, `tuple[Nodes, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
