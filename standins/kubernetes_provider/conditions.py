"""The `pulumi.com/…` annotations that say what to wait for, in the forms pulumi-kubernetes documents.

pulumi.com/waitFor: condition=Ready            the condition has status True
pulumi.com/waitFor: condition=Ready=False      … another status
pulumi.com/waitFor: jsonpath={.status.phase}           the path exists
pulumi.com/waitFor: jsonpath={.status.phase}=Running   … and has this value
pulumi.com/waitFor: '["condition=A", "jsonpath={.b}"]' all of them
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from standins.kubernetes_provider.watching import Verdict

WAIT_FOR = "pulumi.com/waitFor"
TIMEOUT_SECONDS = "pulumi.com/timeoutSeconds"
SKIP_AWAIT = "pulumi.com/skipAwait"
PATCH_FORCE = "pulumi.com/patchForce"
PATCH_FIELD_MANAGER = "pulumi.com/patchFieldManager"
DELETION_PROPAGATION = "pulumi.com/deletionPropagationPolicy"
DEFAULT_TIMEOUT = 600.0

_STEP = re.compile(
    r"""
    \.?(?P<name>[A-Za-z_][\w-]*)             # .name
    | \.?(?P<all>\[\*\]|\*)                  # [*]
    | \[(?P<index>-?\d+)\]                   # [0]
    | \[['"](?P<quoted>[^'"]+)['"]\]         # ['a.b/c']
    | \[\?\(@\.(?P<key>[\w.-]+)\s*==\s*(?P<value>"[^"]*"|'[^']*'|[\w.-]+)\)\]  # [?(@.type=="Ready")]
    """,
    re.VERBOSE,
)


class WaitForError(ValueError):
    """An annotation that cannot be followed. The message names it, its value, the allowed forms and a fix."""


@dataclass(frozen=True)
class Requirement:
    """One thing to wait for: text as written, and either a condition or a path (one of them is set)."""

    text: str
    condition: str = ""
    steps: tuple[tuple[str, str], ...] = ()
    value: str = ""

    def check(self, live: Mapping[str, Any], *, ignore_generation: bool = False) -> Verdict:
        """Look at the object's conditions or path.

        A status of an older generation does not count, unless ignore_generation is set: for kinds whose
        status.observedGeneration is not about their own generation.
        """
        status = live.get("status") or {}
        if self.condition:
            return self._check_condition(live, status, ignore_generation)
        if not ignore_generation and _is_stale(live, status.get("observedGeneration")):
            return Verdict(False, "the status is of an older generation")
        found = _select([live], self.steps)
        if not found:
            return Verdict(False, f"{self.text}: nothing there yet")
        if not self.value or _as_text(found[0]) == self.value:
            return Verdict(True)
        return Verdict(False, f"{self.text}: is {_as_text(found[0])}")

    def _check_condition(
        self, live: Mapping[str, Any], status: Mapping[str, Any], ignore_generation: bool
    ) -> Verdict:
        for entry in status.get("conditions") or []:
            if str(entry.get("type", "")).lower() != self.condition.lower():
                continue
            observed = entry.get("observedGeneration", status.get("observedGeneration"))
            if not ignore_generation and _is_stale(live, observed):
                return Verdict(False, f"condition {self.condition} is of an older generation")
            if str(entry.get("status", "")).lower() == self.value.lower():
                return Verdict(True)
            return Verdict(False, describe_condition(entry))
        return Verdict(False, f"condition {self.condition} is not there yet")


def describe_condition(entry: Mapping[str, Any]) -> str:
    """Return a condition in one line: type, status, reason and message."""
    told = " - ".join(str(entry[key]) for key in ("reason", "message") if entry.get(key))
    return f"condition {entry.get('type')} is {entry.get('status')}" + (f": {told}" if told else "")


def annotations_of(wanted: Mapping[str, Any]) -> dict[str, str]:
    """Return the annotations of an object."""
    found = (wanted.get("metadata") or {}).get("annotations") or {}
    return found if isinstance(found, dict) else {}


def is_true(wanted: Mapping[str, Any], annotation: str) -> bool:
    """Say whether an annotation is "true"."""
    return annotations_of(wanted).get(annotation) == "true"


def timeout_seconds(wanted: Mapping[str, Any], requested: float) -> float:
    """Return how long to wait: the resource option customTimeouts, then the annotation, then ten minutes.

    Raises:
        WaitForError: the annotation is no positive number.
    """
    if requested > 0:
        return requested
    text = annotations_of(wanted).get(TIMEOUT_SECONDS)
    if text is None:
        return DEFAULT_TIMEOUT
    if not str(text).isdigit() or int(text) == 0:
        raise WaitForError(
            f"{TIMEOUT_SECONDS}: {text}. allowed: a whole number of seconds as text. fix: correct it"
        )
    return float(text)


def requirements(wanted: Mapping[str, Any]) -> tuple[Requirement, ...]:
    """Read the waitFor annotation; empty where there is none.

    Raises:
        WaitForError: it is in a form that is not understood.
    """
    text = annotations_of(wanted).get(WAIT_FOR, "")
    if not text:
        return ()
    try:
        listed = json.loads(text)
    except ValueError:
        listed = None
    entries = listed if isinstance(listed, list) else [text]
    if not entries or not all(isinstance(entry, str) for entry in entries):
        raise _refuse(text)
    return tuple(_parse(entry) for entry in entries)


def _parse(text: str) -> Requirement:
    form, _, rest = text.partition("=")
    if form == "condition" and rest:
        condition, _, status = rest.partition("=")
        if condition and (status or "=" not in rest):
            return Requirement(text, condition=condition, value=status or "True")
    if form == "jsonpath":
        match = re.fullmatch(r"\{\s*\$?(?P<path>.+?)\s*\}(?:=(?P<value>.+))?", rest)
        if match:
            return Requirement(text, steps=_steps(match["path"], text), value=match["value"] or "")
    raise _refuse(text)


def _steps(path: str, text: str) -> tuple[tuple[str, str], ...]:
    steps: list[tuple[str, str]] = []
    at = 0
    while at < len(path):
        match = _STEP.match(path, at)
        if not match:
            raise _refuse(text)
        if match["key"]:
            steps.append((f"?{match['key']}", match["value"].strip("\"'")))
        elif match["all"]:
            steps.append(("*", ""))
        elif match["index"]:
            steps.append(("#", match["index"]))
        else:
            steps.append((".", match["name"] or match["quoted"]))
        at = match.end()
    return tuple(steps)


def _select(values: list[Any], steps: tuple[tuple[str, str], ...]) -> list[Any]:
    for kind, argument in steps:
        following: list[Any] = []
        for value in values:
            if kind == "." and isinstance(value, dict):
                following += [value[argument]] if argument in value else []
            elif kind == "#" and isinstance(value, list):
                index = int(argument)
                following += [value[index]] if -len(value) <= index < len(value) else []
            elif kind == "*" and isinstance(value, (dict, list)):
                following += list(value.values()) if isinstance(value, dict) else value
            elif kind.startswith("?") and isinstance(value, list):
                path = tuple((".", part) for part in kind[1:].split("."))
                following += [
                    item for item in value if [_as_text(hit) for hit in _select([item], path)] == [argument]
                ]
        values = following
    return values


def _as_text(value: Any) -> str:
    if isinstance(value, (bool, dict, list)) or value is None:
        return json.dumps(value)
    return str(value)


def _is_stale(live: Mapping[str, Any], observed: Any) -> bool:
    generation = (live.get("metadata") or {}).get("generation")
    return isinstance(observed, int) and isinstance(generation, int) and observed < generation


def _refuse(text: str) -> WaitForError:
    return WaitForError(
        f"{WAIT_FOR}: {text}. allowed: condition=TYPE, condition=TYPE=STATUS, jsonpath={{.path}}, "
        "jsonpath={.path}=VALUE, or a JSON array of such texts; in a path: names, [0], [*], ['name'] and "
        '[?(@.key=="value")]. fix: write it in one of these forms'
    )
