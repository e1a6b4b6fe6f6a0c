"""Findings of pydantic, in this project's words: the key, the value, what is allowed, and the fix."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

from components.config.fields import MAY_HOLD_SECRETS, SERVICE, Refused
from components.config.problems import NAMESPACE, problem
from modelcar.errors import Problem
from modelcar.likely import likely

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

#: What is shown in place of a value that may hold secrets.
_NOT_SHOWN = "not shown: it may hold secrets"
#: An address with a user or a password. What stands before a digest is none.
_CREDENTIALS = re.compile(r"//[^\s'\"]*@(?!sha256:)")
#: A setting of a stack, as a text names it.
_SETTING = re.compile(rf"{NAMESPACE}:([a-zA-Z]+)")

#: What is said of a key that there is not.
UNKNOWN = "unknown key"

#: What is allowed, by pydantic's name of what it found.
_ALLOWED = {
    **dict.fromkeys(("tuple_type", "list_type"), "a list, as […]"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "keys with values, as {{KEY: …}}"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "true or false"),
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float", "int_parsing_size"), "a whole number"),
    **dict.fromkeys(("float_parsing", "float_type"), "a number"),
    **dict.fromkeys(("string_type", "string_unicode"), "a text"),
    "finite_number": "a finite number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "string_too_short": "at least {min_length} character(s)",
    "string_too_long": "at most {max_length} characters",
    "too_short": "at least {min_length} in the list",
    "string_pattern_mismatch": "a match of {pattern}",
    "value_error": "another value: {error}",
}

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
        secret: keys whose values are not shown, beside those whose fields may hold secrets.
    """
    for found in error.errors():
        cause = found.get("ctx", {}).get("error")
        place = _Place(model, found["loc"])
        key = _path(place.in_python if owner else found["loc"]) or "settings"
        shown = _NOT_SHOWN if place.is_hidden or place.top in secret else _shown(found["input"])
        told = partial(_told, key, owner)
        if isinstance(cause, Refused):
            yield told(f"{shown}: {cause.why}", cause.allowed, cause.fix)
        elif found["type"] == "extra_forbidden":
            names = place.names(by_name=bool(owner))
            close = likely(str(found["loc"][-1]), names)
            fix = f"did you mean {close}?" if close else "remove it"
            yield told(UNKNOWN, ", ".join(names), fix)
        elif found["type"] == "missing":
            path = "--path " if "." in key else ""
            allowed, meant = _REQUIRED.get(key, ("a value: it has no default", "…"))
            fix = f"set {key}" if owner else f"pulumi config set {path}{NAMESPACE}:{key} {meant}"
            yield told("not set", allowed, fix)
        elif found["type"] == "literal_error":
            allowed = str(found["ctx"]["expected"])
            choices = re.findall(r"'([^']+)'", allowed)
            like = difflib.get_close_matches(str(found["input"]), choices, n=1, cutoff=0.4)
            fix = f"did you mean {like[0]}?" if like else "choose one of these"
            yield told(shown, allowed, fix)
        else:
            yield told(shown, _allowed(found), f"correct {owner or NAMESPACE}{'.' if owner else ':'}{key}")


def _allowed(found: ErrorDetails) -> str:
    """Return what is allowed, in this project's words."""
    known = _ALLOWED.get(found["type"])
    return known.format(**found.get("ctx", {})) if known else found["msg"]


def _shown(value: Any) -> str:
    text = repr(value)
    return "not shown" if _CREDENTIALS.search(text) else text[:120]


def _told(key: str, owner: str, value: str, allowed: str, fix: str) -> Problem:
    if not owner:
        return problem(key, value, allowed, fix)
    allowed, fix = (_SETTING.sub(lambda found: snake(found[1]), text) for text in (allowed, fix))
    return Problem(f"{owner}.{key}", value, allowed, fix)


def snake(text: str) -> str:
    """Return a key of a stack by the name that Python has for it."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", text).lower()


def _path(location: tuple[int | str, ...]) -> str:
    """Return a place in the settings as `pulumi config --path` takes it."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


class _Place:
    """A place in settings, as pydantic tells it: keys, names of fields, and numbers in lists."""

    def __init__(self, model: type[BaseModel], location: tuple[int | str, ...]) -> None:
        """Follow a place from the model that it is in."""
        self.top = location[0] if location else None
        #: The same place, with the names that Python has for the fields; keys of a map are anybody's.
        self.in_python: tuple[int | str, ...] = ()
        #: The section that the last part stands in, and the one that it is; None where that is none.
        self.section: type[BaseModel] | None = None
        inner: type[BaseModel] | None = model
        fields: list[FieldInfo] = []
        for part in location:
            if isinstance(part, int):  # a place in a list, which says nothing of what the list holds
                self.in_python += (part,)
                continue
            self.section = inner
            name, field = _field(inner, part)
            self.in_python += (name,)
            inner = None
            if field:
                fields.append(field)
                inner = next(models_in(field.annotation), None)
        #: Whether what was found there may hold secrets.
        self.is_hidden = any(map(_may_hold_secrets, fields)) or _has_secrets(inner)

    def names(self, *, by_name: bool) -> list[str]:
        """Return the keys of the section that the last part stands in."""
        fields = self.section.model_fields if self.section else {}
        return sorted(name if by_name else str(field.alias) for name, field in fields.items())


def _field(section: type[BaseModel] | None, key: str) -> tuple[str, FieldInfo | None]:
    """Return a field of a section and its name in Python; the key as it is where there is no such field."""
    fields = section.model_fields if section else {}
    return next(((name, field) for name, field in fields.items() if key in {name, field.alias}), (key, None))


def _may_hold_secrets(field: FieldInfo) -> bool:
    return MAY_HOLD_SECRETS in field.metadata


def _has_secrets(section: type[BaseModel] | None) -> bool:
    """Tell whether any field of a section, or of those in it, may hold secrets."""
    return section is not None and any(
        _may_hold_secrets(field) or any(map(_has_secrets, models_in(field.annotation)))
        for field in section.model_fields.values()
    )


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the sections that an annotation is made of: `Nodes | None`, `tuple[Nodes, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)
