"""What no model of a stack can know alone: names, shared runtimes, and room on the pools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from components.config.checks import secrets
from components.config.checks.google import same_names
from components.config.model_spec import ModelSpec
from components.config.pool_room import kept_gpus, most_gpus, pools
from components.config.problems import problem
from components.config.settings import Settings
from components.config.stack import Stack
from modelcar.errors import Problem

#: What a ServingRuntime says that models share, so that it has to be equal in all of them.
RUNTIME_KEYS = (
    "runtime",
    "deployment_mode",
    "server_image",
    "server_command",
    "server_host_paths",
    "server_writable_paths",
    "read_ahead",
    "server_port",
    "health_path",
    "shared_memory",
    "start_timeout_seconds",
    "probes",
    "termination",
)


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
    if stack.shared.delivery == "gitops":
        yield from secrets.in_git(stack.secrets)


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
        differing = [str(Settings.model_fields[key].alias) for key in runtime_differences(settings, other)]
        if differing:
            found = f"{runtime}, and {', '.join(differing)} differ from model {other.key}'s"
            fix = "make them equal, or leave sharedRuntime out of one"
            yield problem(_key(number, "sharedRuntime"), found, "models that these are equal for", fix)


def runtime_differences(one: ModelSpec, other: ModelSpec) -> list[str]:
    """Return what two models say differently of a ServingRuntime that they share, by Python's names."""
    return [key for key in RUNTIME_KEYS if getattr(one, key) != getattr(other, key)]


def _pools(stack: Stack) -> Iterator[Problem]:
    google = stack.google
    if google is None:
        return
    yield from same_names(google)
    if len(stack.models) < 2:
        return
    for key, pool in pools(google):
        models = [m for m in stack.on_pool(pool.name) if not m.idle]
        needed, room = sum(map(kept_gpus, models)), most_gpus(pool)
        if needed > room:
            shown = ", ".join(f"{m.key} {kept_gpus(m)}" for m in models)
            other = ", or name another pool in nodePool" if any(m.node_pool for m in models) else ""
            yield problem(
                f"{key}.maxNodes",
                f"{pool.max_nodes}, which is {room} GPUs, and its models keep {needed} ({shown}): "
                "some would stay Pending",
                f"maxNodes of at least {-(-needed // pool.gpus_per_node)}",
                f"raise it, lower minReplicas, or set idle for some{other}",
            )
