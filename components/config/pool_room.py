"""What a node of a GPU pool has for pods, and whether a model's pods fit there."""

from __future__ import annotations

from collections.abc import Iterator

from components.config import gpus
from components.config.google import GoogleSettings, NodeSettings
from components.config.problems import problem
from components.config.quantities import quantity
from components.config.settings import Settings
from modelcar.errors import Problem

GIB = 2.0**30


def pools(google: GoogleSettings) -> Iterator[tuple[str, NodeSettings]]:
    """Yield each pool with the key that it is set by."""
    yield "google.nodes", google.nodes
    for number, nodes in enumerate(google.pools):
        yield f"google.pools[{number}]", nodes


def room_for_pods(nodes: NodeSettings) -> tuple[float, float] | None:
    """Return processors and GiB that one node has for model servers; None for an unknown machine."""
    machine = gpus.MACHINES.get(nodes.machine_type)
    if machine is None or machine.gpu != nodes.gpu:
        return None
    cpus = gpus.allocatable_cpus(machine.cpus) - gpus.SYSTEM_PODS_CPU
    return cpus, gpus.allocatable_memory(machine.memory) - gpus.SYSTEM_PODS_MEMORY


def most_gpus(nodes: NodeSettings) -> int:
    """Return the GPUs of a pool that has all of its nodes."""
    return int(nodes.gpus_per_node * nodes.max_nodes)


def kept_gpus(settings: Settings) -> int:
    """Return the GPUs that a model keeps, however few ask it something."""
    return 0 if settings.idle else int(settings.gpu_count * settings.min_replicas)


def key_of(google: GoogleSettings, name: str) -> str:
    """Return the key that a pool is set by."""
    return next((key for key, pool in pools(google) if pool.name == name), "google.nodes")


def misfits(settings: Settings, nodes: NodeSettings) -> Iterator[Problem]:
    """Yield why a model's pods would stay Pending on a pool, or not start there.

    Args:
        settings: the model's, with the pools as the stack has them.
        nodes: the pool.
    """
    google = settings.google
    several = google is not None and google.pools and settings.node_pool
    other = ", or name another pool in nodePool" if several else ""
    if room := room_for_pods(nodes):
        cpus, memory = room
        if quantity(settings.cpu) > cpus:
            value = f"{settings.cpu}, more than {nodes.machine_type} has for pods: it would stay Pending"
            yield problem(
                "cpu", value, f"at most {cpus:.1f}", f"lower cpu, or take a larger machineType{other}"
            )
        if quantity(settings.memory) / GIB > memory:
            value = f"{settings.memory}, more than {nodes.machine_type} has for pods: it would stay Pending"
            yield problem(
                "memory",
                value,
                f"at most {memory:.0f}Gi",
                f"lower memory, or take a larger machineType{other}",
            )
    # An image that is there already may hold both.
    if settings.architecture != "amd64" and not settings.image:
        value = f"{settings.architecture}, and {nodes.machine_type} is x86: no container would start"
        yield problem("architecture", value, "amd64 there", "remove it")
    if settings.gpu and settings.gpu != nodes.gpu:
        value = f"{settings.gpu}, and the pool {nodes.name} has {nodes.gpu}"
        yield problem("gpu", value, nodes.gpu, f"change it, or add a pool to modelcar:google.pools{other}")
    if settings.vllm and settings.vllm.dtype == "bfloat16" and nodes.gpu in gpus.NO_BFLOAT16:
        value = f"bfloat16 on {nodes.gpu}, which cannot compute in it"
        yield problem(
            "vllm.dtype", value, "half or float32 there", f"set it to half, or take another GPU{other}"
        )
    if settings.gpu_count < 1:
        value = f"{settings.gpu_count} on a stack with GPU nodes"
        yield problem("gpuCount", value, "1 or more", "set it to the GPUs that one pod needs")
    elif settings.gpu_count > nodes.gpus_per_node:
        value = f"{settings.gpu_count}, more than one node has ({nodes.gpus_per_node}): it would stay Pending"
        yield problem(
            "gpuCount", value, f"at most {nodes.gpus_per_node}", f"lower it, or take a larger machine{other}"
        )
    else:
        room_for = nodes.gpus_per_node // settings.gpu_count * nodes.max_nodes
        if settings.max_replicas > room_for:
            value = f"{settings.max_replicas}, more than {nodes.max_nodes} nodes hold ({room_for})"
            key = key_of(google, nodes.name) if google else "google.nodes"
            fix = f"raise {key}.maxNodes, or lower it{other}"
            yield problem("maxReplicas", value, f"at most {room_for}", fix)
