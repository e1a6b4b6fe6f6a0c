"""What a stack's file says, as its user wrote it: not yet checked, and in any case without a traceback."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from modelcar.errors import InputError, refuse


def read(file: Path) -> dict[str, Any]:
    """Return the `modelcar:` settings of a stack's file; none where there is no file.

    A key without a value says nothing.

    Raises:
        InputError: it is not YAML, or not of Pulumi's shape.
    """
    document = document_of(file)
    config = document.get("config") or {}
    if not isinstance(config, dict):
        raise _refused(
            file, f"config: {_shape(config)}", "settings below `config:`, as `modelcar:KEY: VALUE`"
        )
    return {
        str(key).removeprefix("modelcar:"): value
        for key, value in config.items()
        if value is not None  # as Pulumi has it
    }


def document_of(file: Path) -> dict[str, Any]:
    """Return what one of Pulumi's files holds; nothing where there is no file.

    Raises:
        InputError: it is not YAML, or no mapping.
    """
    if not file.exists():
        return {}
    place = ""
    try:
        document = yaml.safe_load(file.read_bytes())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f":{mark.line + 1}" if mark else ""
        found = str(error.problem or error.context)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        found = " ".join(str(error).split())[:200]
    else:
        if document is None or isinstance(document, dict):
            return document or {}
        found = _shape(document)
    raise _refused(file, found, "YAML, as Pulumi reads it", place)


def _refused(file: Path, found: str, allowed: str, place: str = "") -> InputError:
    at = f"line {place[1:]} of it" if place else "it"
    return refuse(f"{file.name}{place}", found, allowed=allowed, fix=f"correct {at}: {file}")


def _shape(value: Any) -> str:
    return "a list" if isinstance(value, list) else f"{str(value)[:60]!r}, which is no mapping"


def models_of(settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the entries of `models`, which may be a list or its JSON; what is wrong in it is left out.

    The program's own checks name that.
    """
    listed = settings.get("models")
    if isinstance(listed, str):
        try:
            listed = json.loads(listed)
        except (ValueError, RecursionError):
            listed = []
    return [entry for entry in listed if isinstance(entry, Mapping)] if isinstance(listed, list) else []
