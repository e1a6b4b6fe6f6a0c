"""Which pool of GPU nodes a model's pods land on."""

from __future__ import annotations

from collections.abc import Sequence

from components.config import gpus
from components.config.google import GoogleSettings, NodeSettings
from components.config.pool_room import kept_gpus, misfits, most_gpus, room_for_pods
from components.config.problems import NAMESPACE, problem
from components.config.quantities import quantity
from components.config.settings import Settings
from modelcar.errors import InputError, Problem


def placed(settings: Settings) -> Settings:
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
        chosen = _suited(settings, pools)[0]
    return on_pool(settings, chosen)


def spread(models: Sequence[Settings], google: GoogleSettings | None) -> tuple[Settings, ...]:
    """Return models of a stack, some on another pool where one would have to keep more GPUs than it has.

    Models that name their pool stay there. The others follow in the order of the list, each to the first of
    the pools that suit it with GPUs left. Where there are enough GPUs, no model moves.

    Args:
        models: each on the pool that it would take alone.
        google: the Google side as the stack has it.
    """
    if google is None or not google.pools:
        return tuple(models)
    left = {pool.name: most_gpus(pool) for pool in google.all_pools}
    for model in models:
        left[_pool_of(model)] -= kept_gpus(model)
    if min(left.values()) >= 0:
        return tuple(models)
    for model in models:
        if not model.node_pool:
            left[_pool_of(model)] += kept_gpus(model)
    result = []
    for model in models:
        if model.node_pool:
            result.append(model)
            continue
        own, kept = model.model_copy(update={"google": google}), kept_gpus(model)
        suited = _suited(own, google.all_pools)
        chosen = next((pool for pool in suited if not kept or kept <= left[pool.name]), suited[0])
        left[chosen.name] -= kept
        result.append(on_pool(own, chosen))
    return tuple(result)


def _pool_of(placed: Settings) -> str:
    return str(placed.google.nodes.name) if placed.google else ""


def _suited(settings: Settings, pools: Sequence[NodeSettings]) -> list[NodeSettings]:
    """Return the pools that can take a model's pods: the smallest first, and of equal ones the first.

    Where each refuses something of the model, the first that has room for its pods.

    Raises:
        InputError: no pool can take it, each for a reason of its own.
    """
    lacks = {pool.name: lack(settings, pool) for pool in pools}
    fitting = [pool for pool in pools if lacks[pool.name] is None]
    fitting.sort(key=lambda pool: (pool.gpus_per_node, gpus.MACHINES[pool.machine_type].memory))
    refused = {pool.name: list(misfits(settings, pool)) for pool in fitting}
    if suited := [pool for pool in fitting if not refused[pool.name]]:
        return suited
    if len(fitting) < len(pools):
        value = "; ".join(
            f"{name}: {why or ', '.join(_briefly(refused[name]))}" for name, why in lacks.items()
        )
        fix = "lower what the model asks for, or add a pool to modelcar:google.pools"
        raise InputError([problem("nodePool", f"no pool can take it: {value}", "a pool that can", fix)])
    return fitting[:1]


def _briefly(found: Sequence[Problem]) -> list[str]:
    return [f"{one.key.removeprefix(f'{NAMESPACE}:')} {one.value}" for one in found]


def on_pool(settings: Settings, pool: NodeSettings) -> Settings:
    """Return the same settings for a pool.

    Raises:
        InputError: what the pool and the model do not allow together.
    """
    google = settings.google.model_copy(update={"nodes": pool}) if settings.google else None
    if found := list(misfits(settings, pool)):
        raise InputError(found)
    return settings.model_copy(update={"google": google})


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
