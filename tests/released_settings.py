"""The names of all settings: a release records them, so that none is lost without a word."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from components.config.settings import Settings

#: A file for each release, VERSION.json, with the names of its settings.
RELEASED = Path(__file__).parent / "fixtures" / "settings"


def names(section: type[BaseModel] = Settings) -> list[str]:
    """Return the names of all settings, `KEY` or `KEY.FIELD`, in order."""
    return sorted(_names(section))


def _names(section: type[BaseModel]) -> Iterator[str]:
    for name, field in section.model_fields.items():
        key = field.alias or name
        yield key
        for inner in _sections(field.annotation):
            yield from (f"{key}.{below}" for below in _names(inner))


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)
