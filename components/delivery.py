"""How models get into the cluster: applied by this program, or by Argo CD out of Git."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pulumi
import pulumi_kubernetes as kubernetes

from components.egress import EgressPolicy, EgressPolicyArgs
from components.google.cloud import GoogleCloud
from components.ingress import IngressPolicy, IngressPolicyArgs
from components.kserve_platform import KServePlatform, KServePlatformArgs, verify
from components.model_service import ModelService, ModelServiceArgs, SharedRuntime
from components.models import Stack
from components.options import formerly, imported
from components.pre_pull import PrePull, PrePullArgs
from components.preflight import Facts
from components.pull_access import PullAccess, PullAccessArgs
from components.settings import Settings
from components.smoke_test import SmokeTest
from modelcar.errors import InputError
from operations import gitops, placement

#: Lines of differences that a preview shows; a review has the rest in Git.
MOST_LINES = 200


@dataclass(frozen=True)
class Place:
    """Where models are served.

    options: the cluster's provider, and what comes before any model: KServe, the namespace.
    kubeconfig: of the cluster, where the settings have none.
    runtimes: ServingRuntimes that models share, by name.
    cloud: with the pools that models wait for.
    """

    options: pulumi.ResourceOptions
    kubeconfig: pulumi.Output[str] | None = None
    runtimes: Mapping[str, SharedRuntime] = field(default_factory=dict)
    cloud: GoogleCloud | None = None


def place(facts: Facts, cloud: GoogleCloud | None) -> Place | None:
    """Declare what all models need of the cluster; None where this program declares no model in it."""
    stack, settings = facts.stack, facts.stack.shared
    if not settings.uses_cluster:
        return None
    own_cluster = settings.kubeconfig or settings.kube_context
    kubeconfig = cloud.cluster.kubeconfig if cloud and not own_cluster else None
    cluster = kubernetes.Provider(
        "cluster",
        kubeconfig=settings.kubeconfig if kubeconfig is None else kubeconfig,
        context=settings.kube_context,
        enable_server_side_apply=True,
    )
    options = pulumi.ResourceOptions(provider=cluster)
    if settings.kserve.install:
        arguments = KServePlatformArgs(settings.kserve, settings.deployment_mode)
        options = _after(options, KServePlatform("kserve", arguments, options))
    elif settings.kserve.verify and facts.reachable:
        knative = any(model.deployment_mode == "Knative" for model in stack.models)
        options = _after(options, verify(settings.kserve, "Knative" if knative else "Standard", options))
    if settings.delivery != "cluster":
        return None
    if settings.create_namespace:
        name = settings.namespace
        own = imported(options, "Namespace", settings.import_existing, name)
        options = _after(options, kubernetes.core.v1.Namespace(name, metadata={"name": name}, opts=own))
    if facts.tested:
        name = placement.config_map_name(settings)
        options = _after(
            options, SmokeTest("smoke-test", name, settings.namespace, vars(facts.tested), options)
        )
    shared = {str(m.shared_runtime): m for m in reversed(stack.models) if m.shared_runtime}
    runtimes = {name: SharedRuntime(shared[name], options) for name in sorted(shared)}
    return Place(options, kubeconfig, runtimes, cloud)


def to_cluster(
    parent: pulumi.Resource, name: str, settings: Settings, storage_uri: pulumi.Output[str], place: Place
) -> pulumi.Output[str]:
    """Declare a model's objects, each after what its pods need.

    Args:
        parent: the model's component. name: of its resources.
        settings: the model's.
        storage_uri: what is served.
        place: where.

    Returns:
        What is served, once it is.
    """
    options = pulumi.ResourceOptions.merge(place.options, pulumi.ResourceOptions(parent=parent))
    if place.cloud and settings.google:
        options = _after(options, place.cloud.pools[settings.google.nodes.name])

    def own(former: str) -> pulumi.ResourceOptions:
        # Only a stack's only model was without a component of its own.
        return options if settings.name else pulumi.ResourceOptions.merge(options, formerly(parent, former))

    account = None
    if settings.needs_pull_access:
        arguments = PullAccessArgs.of(settings)
        account = PullAccess(f"{name}-pull-access", arguments, own("pull-access")).service_account
    if settings.egress.restrict:
        policed = EgressPolicyArgs(
            settings.service_name, settings.namespace, settings.egress, settings.import_objects
        )
        # Before the pods: none of them ever runs without it.
        options = _after(options, EgressPolicy(f"{name}-egress", policed, own("egress")))
    if settings.ingress:
        closed = IngressPolicyArgs(settings.service_name, settings.namespace, settings.ingress)
        options = _after(options, IngressPolicy(f"{name}-ingress", closed, options))
    if settings.pre_pull and not settings.idle:
        pulled = PrePullArgs(storage_uri, settings, account, place.kubeconfig)
        storage_uri = PrePull(f"{name}-pre-pull", pulled, own("pre-pull")).storage_uri
    runtime = place.runtimes.get(settings.shared_runtime or "")
    served = ModelServiceArgs(storage_uri, settings, account, place.kubeconfig, runtime)
    options = pulumi.ResourceOptions.merge(options, formerly(parent, settings.service_name))
    return ModelService(name, served, options).storage_uri


def _after(options: pulumi.ResourceOptions, *resources: pulumi.Resource) -> pulumi.ResourceOptions:
    return pulumi.ResourceOptions.merge(options, pulumi.ResourceOptions(depends_on=list(resources)))


def to_git(stack: Stack, project: Path, failed: Collection[str] = ()) -> None:
    """Write the models' objects into a Git checkout, once their images are in the registry; a person commits.

    A preview shows the difference and writes nothing.

    Args:
        stack: its settings.
        project: the program's folder.
        failed: models whose image is not in the registry; their files stay as they are.

    Raises:
        pulumi.RunError: a file cannot be written.
    """
    preview = pulumi.runtime.is_dry_run()
    if preview and any(not (project / model.lock_path).exists() for model in stack.models):
        pulumi.log.info("delivery gitops: without a lock there is nothing to show yet")
        return
    folders = gitops.folders(stack, project, failed=failed)
    work = gitops.changes if preview else gitops.write
    try:
        changed = [change for folder in folders for change in work(folder)]
    except (InputError, OSError) as error:
        raise pulumi.RunError(f"the image is pushed, and its objects are not written: {error}") from None
    then = "" if preview else ": commit and push, then synchronise in Argo CD"
    pulumi.log.info(_shown(changed, stack.shared, then))


def _shown(changed: list[gitops.Change], settings: Settings, then: str = "") -> str:
    folder = settings.gitops.folder if settings.gitops else ""
    if not changed:
        return f"{folder}: nothing changes"
    lines = [f"{folder}: {len(changed)} files change{then}"]
    for change in changed:
        lines += [f"{change.what}: {change.path.name}", *(f"  {line}" for line in change.diff)]
    shown = list(itertools.islice(lines, MOST_LINES))
    return "\n".join([*shown, *(["…"] if len(lines) > MOST_LINES else [])])
