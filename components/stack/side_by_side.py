"""A service with another name is made and waited for before the former one goes: both need GPUs then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from components.config.pool_room import most_gpus, pools
from components.config.problems import NAMESPACE
from components.config.settings import Settings
from components.config.stack import Stack
from components.stack import last_run


def doubts(stack: Stack, outputs: Mapping[str, Any]) -> Iterator[str]:
    """Yield each pool that has no room for the services that come beside those that go.

    Outputs do not tell how many GPUs a service that goes has, or whether it was idle. So nothing is refused.

    Args:
        stack: its settings.
        outputs: of the last run.
    """
    if stack.google is None or stack.shared.delivery != "cluster":
        return
    former = {
        (found.get("namespace"), found.get("serviceName")): (key, found)
        for key, found in last_run.models(outputs).items()
        if found
    }
    now = {(model.namespace, model.service_name): model for model in stack.models}
    for key, nodes in pools(stack.google):
        models = [model for model in stack.on_pool(nodes.name) if not model.idle and model.await_ready]
        come = [model for model in models if (model.namespace, model.service_name) not in former]
        go = [
            (name, found)
            for place, (name, found) in former.items()
            if place not in now and found.get("nodePool") == nodes.name
        ]
        if not come or not go:
            continue
        needed = sum(_gpus(model) for model in models) + sum(_former_gpus(stack, name) for name, _ in go)
        room = most_gpus(nodes)
        if needed <= room:
            continue
        names = ", ".join(model.service_name for model in come)
        leave = ", ".join(str(found.get("serviceName")) for _, found in go)
        most = -(-needed // nodes.gpus_per_node)
        yield (
            f"{names} is made and waited for before {leave} goes, and pool {nodes.name} has {room} of the "
            f"{needed} GPUs that all need at that time: this run would end without the new service. Raise "
            f"{NAMESPACE}:{key}.maxNodes to {most} for this run, or first let go of the pods (`make "
            "idle`) and change the name while the stack is idle"
        )


def _gpus(model: Settings) -> int:
    return max(1, model.min_replicas) * model.gpu_count


def _former_gpus(stack: Stack, name: str) -> int:
    """Return the GPUs of a service that goes: as its model has now, or the fewest that it can have had."""
    for model in stack.models:
        if name in (model.key, *model.former_names):
            return _gpus(model)
    return 1
