"""vLLM's command line, read as vLLM reads it (0.23, utils/argparse_utils.py: FlexibleArgumentParser)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

SHORT = {
    "-tp": "--tensor-parallel-size",
    "-pp": "--pipeline-parallel-size",
    "-dp": "--data-parallel-size",
    "-sc": "--speculative-config",
}

#: An option, and a space before its value.
_JOINED = re.compile(r"(?P<name>--?[A-Za-z][\w.-]*)\s(?P<value>.*)", re.DOTALL)
#: Options whose value may be any text.
_OF_TEXT = frozenset({"--chat-template", "--response-role"})

#: Digits beyond which no number of tokens or bytes goes.
_DIGITS = 18
_COUNT = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[kKmMgGtT])?")
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


def number(text: str) -> int:
    """Return a number as vLLM has it: 32k is 32000, 32K is 32768, 25.6k is 25600.

    Raises:
        ValueError: it is none; the words say why, where there is more to say.
    """
    found = _COUNT.fullmatch(text.strip())
    if not found or len(text) > _DIGITS or ("." in text and not found["unit"]):
        raise ValueError("not a number")
    digits, unit = found["number"], found["unit"]
    if unit is None:
        return int(digits)
    if unit.islower():
        return int(float(digits) * 10 ** (3 * _POWERS[unit]))
    if "." in digits:
        raise ValueError(f"{unit} takes no decimals; did you mean {digits}{unit.lower()}?")
    return int(digits) << 10 * _POWERS[unit.lower()]


def said(arguments: Sequence[str]) -> dict[str, str | None]:
    """Return the options of a command line, with their first values; the last one of a name counts."""
    return {name: values[0] if values else None for name, values in options(arguments)}


def options(arguments: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each option by its long name, with `-`, and its values."""
    place = 0
    while place < len(arguments):
        argument, place = arguments[place], place + 1
        if not argument.startswith("-"):
            continue
        name, separator, value = argument.partition("=")
        first = place
        while not separator and place < len(arguments) and not arguments[place].startswith("-"):
            place += 1
        key, dot, rest = name.partition(".")
        key = SHORT.get(key, key.replace("_", "-"))
        yield key + dot + rest, (value,) if separator else tuple(arguments[first:place])


def document(arguments: Sequence[str], name: str) -> dict[str, Any]:
    """Return an option whose value is a JSON object; `--name.key value` says one of its keys.

    Raises:
        ValueError: its value is no JSON object.
    """
    whole: dict[str, Any] = {}
    keys: dict[str, Any] = {}
    for option, values in options(arguments):
        if option == name:
            try:
                found = json.loads(values[0]) if values else None
            except RecursionError:
                raise ValueError("nested too deeply") from None
            if not isinstance(found, dict):
                raise ValueError("not a JSON object")
            whole = found
        elif option.startswith(f"{name}.") and values:
            _set(keys, option.removeprefix(f"{name}.").split("."), values[0])
    return keys or whole  # vLLM puts the keys at the end of the line, where they replace the whole


def _set(into: dict[str, Any], path: Sequence[str], text: str) -> None:
    *folders, last = path
    for folder in folders:
        into = into.setdefault(folder, {})
        if not isinstance(into, dict):
            return
    if last.endswith("+"):
        there = into.setdefault(last[:-1], [])
        if isinstance(there, list):
            there.extend(text.split(","))
        return
    into[last] = _value(text)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return number(text)
    except ValueError:
        return text


def joined(arguments: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """Yield each option that shares an element with its value, as `--name value`: place, name, value.

    argparse takes an element with a space for no option (`_parse_optional`), so that vLLM ends with
    `unrecognized arguments`. What follows an option of free text is that option's value.
    """
    for place, argument in enumerate(arguments):
        found = _JOINED.match(argument)
        if found and not (place and arguments[place - 1].replace("_", "-") in _OF_TEXT):
            yield place, found["name"], found["value"].lstrip("= \t\n").rstrip()


def variables(entries: Sequence[str]) -> Mapping[str, str]:
    """Return NAME=VALUE entries by name; what is no such entry is told elsewhere."""
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)
