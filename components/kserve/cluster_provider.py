"""The cluster's provider, alike in every checkout: nothing of a machine's environment is among its inputs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pulumi
import pulumi_kubernetes as kubernetes

#: Variables that the SDK (pulumi_kubernetes 4) writes into a provider's inputs where the program says
#: nothing. The plugin reads each of them too: they count as before, and are no part of the stack's state.
#: There the path of another machine's kubeconfig was shown as a change, or could not be read.
CAPTURED = ("KUBECONFIG", "PULUMI_K8S_")


def cluster_provider(
    name: str,
    kubeconfig: pulumi.Input[str] | None,
    context: str | None = None,
    opts: pulumi.ResourceOptions | None = None,
    identifier: pulumi.Input[str | None] = None,
) -> kubernetes.Provider:
    """Declare the provider.

    Without an identifier it takes another address or CA certificate in the kubeconfig for another cluster,
    and Pulumi makes anew all that is in it. Adding or removing one replaces nothing; another one does.
    Source: DiffConfig in pulumi-kubernetes, provider/pkg/provider/provider.go (4.16 and newer).

    Args:
        name: of the resource.
        kubeconfig: its text or path; None for what the machine has (KUBECONFIG, ~/.kube/config).
        context: in it; the current one where None.
        opts: of the provider.
        identifier: what tells the cluster from every other one, as long as it lives.
    """
    with _unseen(CAPTURED):
        return kubernetes.Provider(
            name,
            cluster_identifier=identifier,
            kubeconfig=kubeconfig,
            context=context,
            enable_server_side_apply=True,
            opts=opts,
        )


@contextmanager
def _unseen(prefixes: tuple[str, ...]) -> Iterator[None]:
    """Take variables out of this process's environment until the block ends."""
    taken = {name: value for name, value in os.environ.items() if name.startswith(prefixes)}
    for name in taken:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(taken)


def doubts(environment: dict[str, str] | None = None) -> Iterator[str]:
    """Yield what of this machine reaches the stack's state all the same.

    The docker-build provider (0.0.22) takes DOCKER_HOST as an input of its own: the plugin reads it, whatever
    a program says, and replaces its images where it differs from the last run's.
    """
    if (os.environ if environment is None else environment).get("DOCKER_HOST"):
        yield (
            "DOCKER_HOST is set: the docker-build provider keeps its value in the stack's state, and a run "
            "with another value, or without it, replaces the images ([diff: ~provider]; the same digests are "
            "pushed, and no pod is rolled). Unset it, and name a builder: modelcar:builder"
        )
