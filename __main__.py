"""Models, from weights to served endpoints: settings, registry, node pools, images, services, outputs."""

import asyncio
from pathlib import Path

import pulumi

from components.stack import (
    configuration,
    delivery,
    model,
    other_stack,
    outcomes,
    outputs,
    preflight,
    promotion,
    summary,
)
from modelcar.base import read_base
from modelcar.errors import InputError

PROJECT = Path(__file__).absolute().parent


async def main() -> None:
    """Declare the stack's resources; everything is checked before the first one."""
    try:
        told = await other_stack.at_cluster(configuration.from_pulumi(PROJECT))
        former = await summary.former_outputs()
        checked = preflight.check(told, PROJECT, former, await summary.former_resources())
        checked = await promotion.resolved(checked)
    except InputError as error:
        raise pulumi.RunError(f"the stack's settings or weights are not fit:\n{error}") from None
    stack = checked.stack
    await summary.tell(checked, former)

    registrations = outcomes.Registrations()
    # The registry, its reader, the cluster and its pools of GPU nodes, where they are Google's.
    cloud = delivery.google(checked)
    try:
        await delivery.require_fit(checked, cloud)
    except InputError as error:
        raise pulumi.RunError(f"the cluster is not fit:\n{error}") from None
    # The provider of the cluster, KServe, the namespace, and what models share.
    destination = delivery.destination(checked, cloud)

    # Each model by itself: its image, pinned by digest, and the service that refers to it.
    builds = asyncio.Semaphore(stack.parallel_builds)
    declared = {
        settings.key: model.Model(
            settings.key,
            model.ModelArgs(
                settings,
                checked.locks[settings.key],
                read_base(settings.architecture),
                PROJECT,
                former=checked.former[settings.key],
                builds=builds,
                registry=cloud.registry if cloud else None,
                destination=destination,
                existing=checked.existing.get(settings.key),
            ),
        )
        for settings in stack.models
    }

    # One model's failure is told after the others are there.
    served, failed = await outcomes.outcomes(declared)
    await registrations.settled()
    if stack.shared.delivery == "gitops":
        delivery.to_git(stack, PROJECT, failed)
    await outputs.export(stack, cloud, served, failed, former, checked.cluster_uid)


pulumi.run(main)
