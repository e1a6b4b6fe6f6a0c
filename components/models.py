"""`modelcar:models`: the models of one stack, each with the settings of its own.

An entry is what one model says in place of the stack: what it leaves out is the stack's own setting. A stack
without the list has one model, which is what its settings say.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi

from components import settings as single
from components.checks import NAMESPACE, problem
from components.fields import quantity
from components.google import gpus
from components.google.checks import misfits, room_for_pods
from components.google.settings import GoogleSettings, NodeSettings
from components.settings import KEYS, OF_ENTRIES, OF_STACK, Settings
from modelcar.errors import InputError, Problem, refuse

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
#: What a ServingRuntime says that models share, so that it has to be equal in all of them.
RUNTIME_KEYS = (
    "server_image",
    "server_command",
    "server_host_paths",
    "server_writable_paths",
    "server_port",
    "health_path",
    "shared_memory",
    "start_timeout_seconds",
    "probes",
    "termination",
)
#: Days that the images of a removed model are kept, where the stack does not say.
KEEP_REMOVED_DAYS = 30
#: Images that are brought and built at the same time, where the stack does not say.
PARALLEL_BUILDS = 2


@dataclass(frozen=True)
class Stack:
    """What a stack is told.

    models: the settings of each, in the order of the list; never empty.
    listed: whether the stack has a list; without one its outputs are those of its only model too.
    parallel_builds: images that are brought and built at the same time.
    google: the Google side as the stack has it; a model's own has the model's pool as `nodes`.
    keep_removed_days: so long `make prune` keeps the images of a removed model.
    """

    models: tuple[Settings, ...]
    listed: bool = False
    parallel_builds: int = PARALLEL_BUILDS
    google: GoogleSettings | None = None
    keep_removed_days: int = KEEP_REMOVED_DAYS

    @property
    def shared(self) -> Settings:
        """What all models say alike: registry, cluster, namespace, delivery."""
        return self.models[0]

    def model(self, name: str | None) -> Settings:
        """Return a model by name; where there is only one, nobody has to name it.

        Raises:
            InputError: there is no such model, or it has to be named.
        """
        names = [settings.key for settings in self.models]
        if name is None and len(names) == 1:
            return self.models[0]
        for settings in self.models:
            if settings.key == name:
                return settings
        found = (
            "not said, and the stack has several" if name is None else f"{name}: the stack has no such model"
        )
        raise refuse("model", found, allowed=", ".join(names), fix=f"name one: --model {names[0]}")

    def on_pool(self, pool: str) -> tuple[Settings, ...]:
        """Return the models whose pods land on a pool."""
        return tuple(m for m in self.models if m.google is not None and m.google.nodes.name == pool)


def load_stack(config: Mapping[str, str], project: Path) -> Stack:
    """Check the stack's configuration and return it.

    Args:
        config: every configuration value of the stack by full key, as Pulumi hands them over (strings).
        project: the program's folder, to which paths in settings are relative.

    Raises:
        InputError: with every problem that was found, in any of its models.
    """
    own = single.own_values(config)
    values, problems = single.given(config, project)
    parallel = _number(own, "parallelBuilds", (1, 64), PARALLEL_BUILDS, problems)
    keep = _number(own, "keepRemovedDays", (0, 3650), KEEP_REMOVED_DAYS, problems)
    listed = "models" in own
    if listed:
        models, google = _of_list(own["models"], values, project, problems)
    else:
        model = single.checked(values, project, problems)
        models, google = (_placed(model),), model.google
    stack = Stack(models, listed, parallel_builds=parallel, google=google, keep_removed_days=keep)
    if found := list(together(stack)):
        raise InputError(found)
    return stack


def _of_list(
    text: str, shared: dict[str, Any], project: Path, problems: list[Problem]
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
            model = single.checked({**values, **_named(entry)}, project)
            google = model.google
            models.append(_placed(model))
        except InputError as error:
            problems += (_in_entry(found, number, entry) for found in error.problems)
    if problems:
        raise InputError(dict.fromkeys(problems))  # what all models inherit is told once
    return tuple(models), google


def from_pulumi(project: Path) -> Stack:
    """Return the settings of the stack that Pulumi is running.

    Raises:
        InputError: as `load_stack`.
    """
    # pulumi.Config reads one key at a time; a misspelt key is found only by looking at all of them.
    stack = load_stack(pulumi.runtime.get_config_env(), project)
    key = f"{NAMESPACE}:registryPassword"
    if stack.shared.registry_password and not pulumi.runtime.is_config_secret(key):
        raise refuse(
            key,
            "stands in the stack's file for everybody to read (not shown)",
            allowed="a Pulumi secret",
            fix=f"change the password, then: pulumi config set --secret {key}",
        )
    return stack


def _number(
    own: Mapping[str, str], key: str, limits: tuple[int, int], default: int, problems: list[Problem]
) -> int:
    text, (smallest, largest) = own.get(key, str(default)), limits
    if text.isdecimal() and smallest <= int(text) <= largest:
        return int(text)
    problems.append(problem(key, repr(text), f"{smallest} to {largest}", "correct it, or remove it"))
    return default


def _entries(text: str, problems: list[Problem]) -> dict[int, dict[str, Any]]:
    """Return the entries that can be looked at any further, by their place in the list."""
    allowed = "a list of models, each with a name"
    fix = "docs/models.md shows one"
    try:
        document = json.loads(text)
    except ValueError:
        document = text
    if not isinstance(document, list) or not document:
        shown = "[]" if document == [] else repr(document)[:120]
        fix = "`pulumi destroy` removes all of a stack" if document == [] else fix
        problems.append(problem("models", shown, allowed, fix))
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
        default = KEYS[key].default or ""  # Pulumi hands over the project file's, which is the same
        found = kept.pop(key, default)
        if found != default:
            value = f"{found}, beside modelcar:models"
            fix = f"move it into the model's entry, and `pulumi config rm {NAMESPACE}:{key}`"
            problems.append(problem(key, value, "a setting of each entry", fix))
    return kept


def _named(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry with what follows from its name, or from the first one that it ever had."""
    former = entry.get("formerNames")
    first = former[0] if isinstance(former, list) and former else entry["name"]
    return {"model": first, "serviceName": first, **entry}


def _in_entry(found: Problem, number: int, entry: Mapping[str, Any]) -> Problem:
    """Say where in the list a problem is; what the entry does not say is the stack's own."""
    key = found.key.removeprefix(f"{NAMESPACE}:")
    top = key.partition(".")[0].partition("[")[0]
    if top in entry or top in OF_ENTRIES or top in OF_ONE:
        own = f"models[{number}].{key}"
        fix = found.fix.replace(f"{NAMESPACE}:{key}", f"--path '{NAMESPACE}:{own}'")
        return Problem(f"{NAMESPACE}:{own}", f"{found.value} (model {entry['name']})", found.allowed, fix)
    return found


def _placed(settings: Settings) -> Settings:
    """Return a model's settings with the pool that its pods land on as `google.nodes`.

    Raises:
        InputError: no pool can take it, or there is none of that name.
    """
    google = settings.google
    if google is None:
        if settings.node_pool:
            raise InputError(
                [problem("nodePool", settings.node_pool, "with modelcar:google only", "remove it")]
            )
        return settings
    if not google.pools and settings.node_pool in {None, google.nodes.name}:
        return settings
    pools = google.all_pools
    if settings.node_pool:
        chosen = next((pool for pool in pools if pool.name == settings.node_pool), None)
        if chosen is None:
            names = ", ".join(pool.name for pool in pools)
            value = f"{settings.node_pool}: there is no such pool"
            raise InputError([problem("nodePool", value, names, "choose one, or add it to google.pools")])
    else:
        lacks = {pool.name: lack(settings, pool) for pool in pools}
        fitting = [pool for pool in pools if lacks[pool.name] is None]
        if not fitting:
            value = "; ".join(f"{name}: {why}" for name, why in lacks.items())
            fix = "lower what the model asks for, or add a pool to modelcar:google.pools"
            raise InputError([problem("nodePool", f"no pool can take it: {value}", "a pool that can", fix)])
        # The smallest that is enough; of equal ones the first.
        chosen = min(fitting, key=lambda pool: (pool.gpus_per_node, gpus.MACHINES[pool.machine_type].memory))
    return on_pool(settings, chosen)


def on_pool(settings: Settings, pool: NodeSettings) -> Settings:
    """Return the same settings for a pool.

    Raises:
        InputError: what the pool and the model do not allow together.
    """
    google = settings.google.model_copy(update={"nodes": pool}) if settings.google else None
    placed = settings.model_copy(update={"google": google})
    if found := list(misfits(placed, pool)):
        raise InputError(found)
    return placed


def lack(settings: Settings, pool: NodeSettings) -> str | None:
    """Return what a pool lacks for one pod of a model; None where it can take it."""
    if settings.gpu and settings.gpu != pool.gpu:
        return f"has {pool.gpu}, and it needs {settings.gpu}"
    if settings.gpu_count > pool.gpus_per_node:
        return f"{pool.gpus_per_node} GPUs a node, and it needs {settings.gpu_count}"
    room = room_for_pods(pool)
    if room and quantity(settings.cpu) > room[0]:
        return f"{room[0]:.1f} processors for pods, and it needs {settings.cpu}"
    if room and quantity(settings.memory) / 2**30 > room[1]:
        return f"{room[1]:.0f}Gi for pods, and it needs {settings.memory}"
    return None


def together(stack: Stack) -> Iterator[Problem]:
    """Yield what no model can know alone."""
    yield from _once(stack.models, "name", [s.key for s in stack.models], "rename one")
    yield from _once(stack.models, "serviceName", [s.service_name for s in stack.models], "rename one")
    yield from _once(
        stack.models,
        "imageName",
        # One that is there is pushed by nobody here, so that several may serve it.
        [f"{s.key} (there already)" if s.image else s.repository for s in stack.models],
        "give one of them an imageName of its own",
    )
    yield from _former_names(stack)
    yield from _shared_runtimes(stack.models)
    yield from _pools(stack)


def _key(number: int, name: str) -> str:
    return f"models[{number}].{name}"


def _once(models: Sequence[Settings], key: str, values: Sequence[str], fix: str) -> Iterator[Problem]:
    for number, value in enumerate(values):
        first = values.index(value)
        if first != number:
            found = f"{value}, which models[{first}] ({models[first].key}) has already"
            yield problem(_key(number, key), found, "one of its own", fix)


def _former_names(stack: Stack) -> Iterator[Problem]:
    names = [settings.key for settings in stack.models]
    former = Counter(name for settings in stack.models for name in dict.fromkeys(settings.former_names))
    for number, settings in enumerate(stack.models):
        for name in settings.former_names:
            if name in names or former[name] > 1:
                found = f"{name}, which another model is or was called"
                fix = "keep it with the one model that had it"
                yield problem(_key(number, "formerNames"), found, "names that no other model has", fix)


def _shared_runtimes(models: Sequence[Settings]) -> Iterator[Problem]:
    first: dict[str, Settings] = {}
    names = {settings.service_name for settings in models}
    for number, settings in enumerate(models):
        runtime = settings.shared_runtime
        if runtime is None:
            continue
        if settings.placement != "servingRuntime":
            found = f"{runtime}, and placement {settings.placement} has no ServingRuntime"
            fix = "remove it, or set placement servingRuntime"
            yield problem(_key(number, "sharedRuntime"), found, "with placement servingRuntime", fix)
        if runtime in names:
            found = f"{runtime}, which a model's own ServingRuntime may be called"
            yield problem(_key(number, "sharedRuntime"), found, "a name that is no serviceName", "rename it")
        other = first.setdefault(runtime, settings)
        differing = [
            str(Settings.model_fields[key].alias)
            for key in RUNTIME_KEYS
            if getattr(settings, key) != getattr(other, key)
        ]
        if differing:
            found = f"{runtime}, and {', '.join(differing)} differ from model {other.key}'s"
            fix = "make them equal, or leave sharedRuntime out of one"
            yield problem(_key(number, "sharedRuntime"), found, "models that these are equal for", fix)


def _pools(stack: Stack) -> Iterator[Problem]:
    google = stack.google
    if google is None:
        return
    pools = google.all_pools
    names = [pool.name for pool in pools]
    for name, count in Counter(names).items():
        if count > 1:
            yield problem(
                "google.pools", f"{name}, {count} times", "pools with names of their own", "rename one"
            )
    if len(stack.models) < 2:
        return
    for pool in pools:
        models = [m for m in stack.on_pool(pool.name) if not m.idle]
        needed = sum(m.gpu_count * m.min_replicas for m in models)
        room = pool.gpus_per_node * pool.max_nodes
        if needed > room:
            shown = ", ".join(f"{m.key} {m.gpu_count * m.min_replicas}" for m in models)
            yield problem(
                "google.nodes.maxNodes" if pool is pools[0] else f"google.pools ({pool.name})",
                f"{pool.max_nodes}, which is {room} GPUs, and its models keep {needed} ({shown}): "
                "some would stay Pending",
                f"maxNodes of at least {-(-needed // pool.gpus_per_node)}",
                "raise it, lower minReplicas, or set idle for some",
            )


__all__ = ["OF_MODEL", "Stack", "from_pulumi", "load_stack"]
