"""From a stack's keys to checked settings: parse, type, and check, before any resource is declared.

A wrong value, a misspelt key or two settings that cannot go together are all reported at once, each with what
is allowed and the fix.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from components.config import deprecations
from components.config.checks.signature import problems_of_files
from components.config.checks.together import all_problems
from components.config.explain import explained
from components.config.problems import NAMESPACE, problem
from components.config.settings import PLACEHOLDERS, PLATFORM_FILE, Settings
from modelcar.errors import InputError, Problem

KEYS = {str(field.alias): field for field in Settings.model_fields.values()}

#: What only an entry of `modelcar:models` can say.
OF_ENTRIES = frozenset({"name", "formerNames"})
TOP_LEVEL = frozenset(KEYS) - OF_ENTRIES

#: What a stack says of all of its models, beside the settings (`components/config/models.py`).
OF_STACK = frozenset({PLATFORM_FILE, "models", "parallelBuilds", "keepRemovedDays"})

#: What the committed stack of the embedded platform has as `platformFile`; where that is really, a command of
#: `python -m local` tells by this variable.
USUAL_PLATFORM_FILE = ".local/local/platform.json"
PLATFORM_FILE_VARIABLE = "MODELCAR_PLATFORM_FILE"

#: What a stack need not say where the embedded platform's file does.
_OFFERED = ("registry", "serverImage")

#: Keys that are only right beside another one: where that is wrong, nothing is known of these.
_LEANS_ON_IT = {
    "google": ("importExisting",),
    "image": ("entrypointRunsArguments",),
    "autoscaling": ("minReplicas",),
}
#: Keys that follow from another one, so that they are missing where that is wrong.
_FOLLOWS_FROM_IT = {"google": ("registry",), "image": ("model", "registry")}

#: Keys whose values are objects.
_OBJECTS = frozenset(
    {
        *("autoscaling", "egress", "gitops", "google", "ingress", "knative", "kserve", "probes"),
        *("scheduling", "signature", "termination", "vllm"),
    }
)

#: Keys that former versions had: what is there instead, and what to do.
_REPLACED = {
    "weights": (
        "model: the name of a locked model",
        f"python -m modelcar lock NAME --folder PATH, and pulumi config set {NAMESPACE}:model NAME",
    ),
    "modelSize": ("the lock, which says it", f"pulumi config rm {NAMESPACE}:modelSize"),
    "baseImage": ("modelcar/base.lock", f"pulumi config rm {NAMESPACE}:baseImage"),
}


def load(config: Mapping[str, str], project: Path) -> Settings:
    """Check the configuration of a stack with one model and return its settings.

    `components.config.models.load_stack` does so for any stack.

    Args:
        config: every configuration value of the stack by full key, as Pulumi hands them over (strings).
        project: the program's folder, to which paths in settings are relative.

    Raises:
        InputError: with every problem that was found.
    """
    values, problems = given(config, project)
    return checked(values, project, problems)


def given(config: Mapping[str, str], project: Path) -> tuple[dict[str, Any], list[Problem]]:
    """Return what a stack says, with the embedded platform's defaults, and what is wrong with the keys."""
    own = own_values(config)
    problems = _unknown_keys(own)
    defaults, missing_platform = _platform_defaults(own.get(PLATFORM_FILE), project)
    values = defaults | {key: parsed(key, value) for key, value in own.items() if key in TOP_LEVEL}
    if missing_platform:
        problems.append(missing_platform)
        # What the file would have offered is not another mistake.
        values = {key: PLACEHOLDERS[key] for key in _OFFERED} | values
    return values, problems


def own_values(config: Mapping[str, str]) -> dict[str, str]:
    """Return the values of this program's keys, without its namespace."""
    prefix = f"{NAMESPACE}:"
    return {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}


def checked(
    values: Mapping[str, Any],
    project: Path,
    problems: Iterable[Problem] = (),
    secret: Collection[str] = (),
) -> Settings:
    """Return one model's settings.

    Args:
        values: what is said of it, by key.
        project: the program's folder, to which paths in settings are relative.
        problems: that are known already.
        secret: keys whose values are not shown.

    Raises:
        InputError: with every problem that was found, after those that are known already.
    """
    found = list(problems)
    try:
        settings = Settings.model_validate(values, by_name=False)
    except ValidationError as error:
        raise InputError([*found, *_explain(error, values, secret)]) from None
    if wrong := all_problems(settings):
        raise InputError([*found, *wrong])
    if settings.signature:
        found += problems_of_files(settings.signature, project)
    if found:
        raise InputError(found)
    return settings


def _unknown_keys(own: Mapping[str, str]) -> list[Problem]:
    names = sorted([*TOP_LEVEL, *OF_STACK])
    problems = []
    for key in sorted(own.keys() - set(names)):
        if key in _REPLACED:
            problems.append(problem(key, "a key of version 0.1", *_REPLACED[key]))
            continue
        if gone := deprecations.removed(key):
            fix = f"{gone.instead}; then: pulumi config rm {NAMESPACE}:{key}"
            problems.append(problem(key, f"removed in {gone.removed}", "what replaces it", fix))
            continue
        close = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
        fix = (
            f"did you mean {NAMESPACE}:{close[0]}?"
            if close
            else "remove it; the keys are listed in Pulumi.yaml"
        )
        problems.append(problem(key, "unknown key", ", ".join(names), fix))
    return problems


def parsed(key: str, text: str) -> Any:
    """Return a value as it was meant: Pulumi hands it over as text, JSON for anything but a string."""
    annotation = str(KEYS[key].annotation)
    if key in _OBJECTS or annotation.startswith("tuple") or annotation in {"<class 'bool'>", "<class 'int'>"}:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text  # refused by the field's type, with its own words
    return text


def platform_file(name: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return where the embedded platform's file is: the usual place is another one by MODELCAR_STATE.

    Args:
        name: what the stack says.
        environment: the variables.
    """
    if Path(name) != Path(USUAL_PLATFORM_FILE):
        return name
    state = environment.get("MODELCAR_STATE")
    usual = str(Path(state, "local", "platform.json")) if state else name
    return environment.get(PLATFORM_FILE_VARIABLE) or usual


def _platform_defaults(name: str | None, project: Path) -> tuple[dict[str, Any], Problem | None]:
    """Return what the embedded platform says of this machine; the stack's own keys win over it."""
    if not name:
        return {}, None
    name = platform_file(name)
    allowed, fix = "the JSON object that the embedded platform writes", "run `make platform` (or `make up`)"
    try:
        values = json.loads((project / name).read_text())
        found = "" if isinstance(values, dict) else f"{name} holds no JSON object"
    except FileNotFoundError:
        found = f"{name} does not exist"
    except OSError as error:
        found = f"{name} cannot be read ({error.strerror})"
    except (ValueError, RecursionError) as error:
        found = f"{name} is not JSON: {error}"
    if found:
        return {}, problem(PLATFORM_FILE, found, allowed, fix)
    return {key: value for key, value in values.items() if key in TOP_LEVEL}, None


def _explain(error: ValidationError, values: Mapping[str, Any], secret: Collection[str]) -> list[Problem]:
    """Put pydantic's findings into this project's words, and look behind them for what they hide."""
    problems = list(explained(error, Settings, secret=secret))
    wrong = {str(found["loc"][0]) for found in error.errors() if found["loc"]}
    if wrong:
        # Settings are checked together only where each alone is right: the wrong ones give way for that.
        wrong.update(*(_LEANS_ON_IT.get(key, ()) for key in wrong))
        rest = {key: value for key, value in values.items() if key not in wrong}
        lost = wrong.union(*(_FOLLOWS_FROM_IT.get(key, ()) for key in wrong))
        stand_ins = {key: text for key, text in PLACEHOLDERS.items() if key in lost}
        try:
            problems += all_problems(Settings.model_validate({**stand_ins, **rest}, by_name=False))
        except ValidationError as hidden:
            problems += explained(hidden, Settings, secret=secret)
    return problems
