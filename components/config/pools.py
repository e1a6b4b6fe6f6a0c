"""Which pool of GPU nodes a model's pods land on."""

from __future__ import annotations

from components.config import gpus
from components.config.google import NodeSettings
from components.config.pool_room import misfits, room_for_pods
from components.config.problems import problem
from components.config.quantities import quantity
from components.config.settings import Settings
from modelcar.errors import InputError


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
