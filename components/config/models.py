"""`modelcar:models`: the models of one stack, each with the settings of its own.

An entry is what one model says in place of the stack: what it leaves out is the stack's own setting. A stack
without the list has one model, which is what its settings say.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from components.config import loading
from components.config.checks.models import together
from components.config.explain import UNKNOWN
from components.config.google import GoogleSettings
from components.config.loading import KEYS, OF_ENTRIES, OF_STACK
from components.config.pools import placed, spread
from components.config.problems import NAMESPACE, problem, top_of
from components.config.secrets import Secrets
from components.config.settings import Settings
from components.config.stack import KEEP_REMOVED_DAYS, PARALLEL_BUILDS, Stack
from modelcar.errors import InputError, Problem
from modelcar.likely import likely

#: What belongs to the whole stack, so that an entry cannot say it.
SHARED = frozenset(
    {
        "google",
        "importExisting",
        "registry",
        "registryInsecure",
        "builder",
        "hubEndpoint",
        "promoteFrom",
        "signature",
        "checkReachable",
        "kubeconfig",
        "kubeContext",
        "namespace",
        "createNamespace",
        "deploymentMode",
        "kserve",
        "pullSecret",
        "registryUsername",
        "registryPassword",
        "delivery",
        "gitops",
        "smokeNamespace",
    }
)
#: What an entry can say.
OF_MODEL = frozenset(KEYS) - SHARED
#: What makes a model this one and no other: in a stack with a list, each entry has its own.
OF_ONE = ("model", "image", "imageName", "serviceName", "servedModelName", "rollbackTo")


def load_stack(config: Mapping[str, str], project: Path, secret: Collection[str] = ()) -> Stack:
    """Check the stack's configuration and return it.

    Args:
        config: every configuration value of the stack by full key, as Pulumi hands them over (strings).
        project: the program's folder, to which paths in settings are relative.
        secret: full keys of those that are Pulumi secrets.

    Raises:
        InputError: with every problem that was found, in any of its models; none shows a secret.
    """
    own = loading.own_values(config)
    secrets = Secrets.of(own, loading.own_values(dict.fromkeys(secret, "")))
    with secrets.hidden():
        return _loaded(config, own, secrets, project)


def _loaded(config: Mapping[str, str], own: Mapping[str, str], secrets: Secrets, project: Path) -> Stack:
    values, problems = loading.given(config, project)
    parallel = _number(own, "parallelBuilds", (1, 64), PARALLEL_BUILDS, problems)
    keep = _number(own, "keepRemovedDays", (0, 3650), KEEP_REMOVED_DAYS, problems)
    listed = "models" in own
    if listed:
        models, google = _of_list(own["models"], values, project, problems, secrets.keys)
    else:
        model = loading.checked(values, project, problems, secrets.keys)
        models, google = (placed(model),), model.google
    stack = Stack(
        models,
        listed,
        parallel_builds=parallel,
        google=google,
        keep_removed_days=keep,
        service_named=listed or "serviceName" in values,
        secrets=secrets,
    )
    if found := list(together(stack)):
        raise InputError(found)
    return stack


def _of_list(
    text: str, shared: dict[str, Any], project: Path, problems: list[Problem], secret: Collection[str]
) -> tuple[tuple[Settings, ...], GoogleSettings | None]:
    """Return the settings of each model of a list, and the Google side that they share.

    Raises:
        InputError: with every problem of any of them, after those that are known already.
    """
    entries = _entries(text, problems)
    values = _shared_values(shared, problems)
    models, google = [], None
    for number, entry in entries.items():
        try:
            hidden = {*secret, *(entry if "models" in secret else ())}
            model = loading.checked({**values, **_named(entry)}, project, secret=hidden)
            google = model.google
            models.append(placed(model))
        except InputError as error:
            problems += (_in_entry(found, number, entry) for found in error.problems)
    if problems:
        raise InputError(dict.fromkeys(problems))  # what all models inherit is told once
    return spread(models, google), google


def _number(
    own: Mapping[str, str], key: str, limits: tuple[int, int], default: int, problems: list[Problem]
) -> int:
    text, (smallest, largest) = own.get(key, str(default)), limits
    if text.isascii() and text.isdecimal() and len(text) <= 4 and smallest <= int(text) <= largest:
        return int(text)
    problems.append(problem(key, repr(text)[:120], f"{smallest} to {largest}", "correct it, or remove it"))
    return default


def _entries(text: str, problems: list[Problem]) -> dict[int, dict[str, Any]]:
    """Return the entries that can be looked at any further, by their place in the list."""
    allowed = "a list of models, each with a name"
    fix = "docs/models.md shows one"
    found = "no list (not shown: it may hold secrets)"
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        document, found = None, f"no JSON ({error}; not shown: it may hold secrets)"
    if not isinstance(document, list) or not document:
        if document == []:
            found, fix = "[]", "`pulumi destroy` removes all of a stack"
        problems.append(problem("models", found, allowed, fix))
        return {}
    entries: dict[int, dict[str, Any]] = {}
    for number, entry in enumerate(document):
        key = f"models[{number}]"
        if not isinstance(entry, dict) or not entry.get("name"):
            problems.append(problem(key, "has no name", allowed, fix))
            continue
        for name in sorted(entry.keys() & SHARED):
            why = f"set in model {entry['name']}, and it belongs to the whole stack"
            problems.append(problem(f"{key}.{name}", why, f"{NAMESPACE}:{name}", "set it there"))
        for name in sorted(entry.keys() & OF_STACK):
            problems.append(problem(f"{key}.{name}", "in a model", "at the top", "move it"))
        entries[number] = {k: v for k, v in entry.items() if k not in SHARED | OF_STACK}
    return entries


def _shared_values(values: dict[str, Any], problems: list[Problem]) -> dict[str, Any]:
    """Return what models say who say nothing; what makes a model itself is not among it."""
    kept = dict(values)
    for key in OF_ONE:
        # Pulumi hands over the project file's default of servedModelName, which is empty.
        if found := kept.pop(key, ""):
            value = f"{found}, beside modelcar:models"
            fix = f"move it into the model's entry, and `pulumi config rm {NAMESPACE}:{key}`"
            problems.append(problem(key, value, "a setting of each entry", fix))
    return kept


def _named(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry with what follows from its name, or from the first one that it ever had."""
    first = first_name(entry)
    return {"model": first, "serviceName": first, **entry}


def first_name(entry: Mapping[str, Any]) -> Any:
    """Return the first name that an entry ever had: its lock and its InferenceService keep it.

    None where it has none; it may not have been checked yet.
    """
    former = entry.get("formerNames")
    return former[0] if isinstance(former, list) and former else entry.get("name")


def _unknown(found: Problem, number: int, entry: Mapping[str, Any]) -> Problem:
    """Say of an unknown key what an entry can say, and where a key belongs that only a stack has."""
    key = found.key.removeprefix(f"{NAMESPACE}:")
    names = sorted(OF_MODEL)
    fix = f"did you mean {close}?" if (close := likely(key, names)) else "remove it"
    if not close and (shared := likely(key, SHARED)):
        fix = f"did you mean {NAMESPACE}:{shared}, which belongs to the whole stack? Set it there"
    own = f"{NAMESPACE}:models[{number}].{key}"
    return Problem(own, f"{found.value} (model {entry['name']})", ", ".join(names), fix)


def _in_entry(found: Problem, number: int, entry: Mapping[str, Any]) -> Problem:
    """Say where in the list a problem is; what the entry does not say is the stack's own."""
    key = found.key.removeprefix(f"{NAMESPACE}:")
    top = top_of(key)
    if top == key and found.value == UNKNOWN:
        return _unknown(found, number, entry)
    if top in entry or top in OF_ENTRIES or top in OF_ONE:
        own = f"models[{number}].{key}"
        fix = found.fix.replace(f"{NAMESPACE}:{key}", f"--path '{NAMESPACE}:{own}'")
        return Problem(f"{NAMESPACE}:{own}", f"{found.value} (model {entry['name']})", found.allowed, fix)
    return found
