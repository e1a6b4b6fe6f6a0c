"""How models get into the cluster: applied by this program, or by Argo CD out of Git."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes

from components.cluster import gpu_nodes, keda, knative_fit, kserve_fit, placement
from components.cluster.guard import ClusterAccess, guarded
from components.config.settings import Settings
from components.config.stack import Stack
from components.engine import secrets
from components.engine.options import formerly, imported, once_there
from components.engine.this_stack import marked
from components.engine.threads import in_thread
from components.google.cloud import GoogleCloud, GoogleCloudArgs
from components.kserve.autoscaler import Autoscaler
from components.kserve.cluster_provider import cluster_provider
from components.kserve.egress import EgressPolicy
from components.kserve.ingress import IngressPolicy
from components.kserve.kserve_platform import KServePlatform
from components.kserve.model_service import ModelService, once_served
from components.kserve.pre_pull import PrePull
from components.kserve.pull_access import PullAccess
from components.kserve.shared_runtime import SharedRuntime
from components.kserve.smoke_test import SmokeTest, SmokeTestArgs
from components.manifests import autoscaling, gitops
from components.manifests.scheduling import finds_gpus_by_label
from components.stack import translate
from components.stack.preflight import CheckedStack
from modelcar.errors import InputError

#: Lines of differences that a preview shows; a review has the rest in Git.
MOST_LINES = 200


@dataclass(frozen=True)
class Destination:
    """Where models are served.

    options: the cluster's provider, and what comes before any model: KServe, the namespace.
    access: how the program itself asks the cluster.
    runtimes: ServingRuntimes that models share, by name.
    cloud: with the pools that models wait for.
    uris: of the images of models that share a runtime, by its name, once the models are declared.
    """

    options: pulumi.ResourceOptions
    access: ClusterAccess = field(default_factory=ClusterAccess)
    runtimes: Mapping[str, SharedRuntime] = field(default_factory=dict)
    cloud: GoogleCloud | None = None
    uris: Mapping[str, list[pulumi.Output[str]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Delivered:
    """A model in the cluster. served: its image, once it serves. done: there once all its objects are."""

    served: pulumi.Output[str]
    done: pulumi.Output[Any]


def google(checked: CheckedStack) -> GoogleCloud | None:
    """Declare what is Google's; None where nothing of the stack is."""
    stack = checked.stack
    if stack.google is None:
        return None
    args = GoogleCloudArgs(
        settings=stack.google,
        needs=checked.disks,
        imports=[
            kind
            for kind in stack.shared.import_existing
            if kind != "Namespace" and kind != "KServeNamespaces"  # the cluster's
        ],
        endpoint=checked.endpoint,
    )
    return GoogleCloud("modelcar", args)


async def require_fit(checked: CheckedStack, cloud: GoogleCloud | None) -> None:
    """Refuse a cluster that is there and cannot serve the models; in a preview too, where it can be asked.

    Raises:
        InputError: its KServe serves no modelcar, its Knative does not take a model, it lacks KEDA that a
            model needs, images would not be pulled to its nodes with GPUs, or it cannot be asked.
    """
    settings, models = checked.stack.shared, checked.stack.models
    asks_kserve = settings.kserve.verify and not settings.kserve.install
    asks_keda = settings.delivery == "cluster" and any(autoscaling.of(model) for model in models)
    pulling = [model for model in models if model.pre_pull and not model.idle and finds_gpus_by_label(model)]
    if not (checked.reachable or checked.cluster_there) or not (asks_kserve or asks_keda or pulling):
        return  # and wait for no cluster that is being made
    made = _kubeconfig_of(cloud, settings)
    reached = settings.reached_by(None if made is None else await made.future())
    if asks_kserve:
        knative = any(model.deployment_mode == "Knative" for model in models)
        # auto, in a first preview; the first `up` serves by what was assumed.
        assumed = (
            checked.tested is not None and not checked.tested.fingerprint and pulumi.runtime.is_dry_run()
        )
        modelcars = not assumed and any(model.placement != "imageVolume" for model in models)
        mode = "Knative" if knative else "Standard"
        await in_thread(kserve_fit.require, reached, mode, modelcars=modelcars)
        if knative:
            await in_thread(knative_fit.require, reached, models)
    if asks_keda:
        await in_thread(keda.require, reached)
    for model in pulling:
        await in_thread(gpu_nodes.require, model.reached_by(reached.kubeconfig))


def _kubeconfig_of(cloud: GoogleCloud | None, settings: Settings) -> pulumi.Output[str] | None:
    """Return how this program's own cluster is reached; None where the stack names another."""
    own_cluster = settings.kubeconfig or settings.kube_context
    return cloud.cluster.kubeconfig if cloud and not own_cluster else None


def destination(checked: CheckedStack, cloud: GoogleCloud | None) -> Destination | None:
    """Declare what all models need of the cluster; None where this program declares no model in it."""
    stack, settings = checked.stack, checked.stack.shared
    if not settings.uses_cluster:
        return None
    kubeconfig = _kubeconfig_of(cloud, settings)
    reached = settings.kubeconfig if kubeconfig is None else kubeconfig
    access = translate.access(settings, kubeconfig)
    if "kubeconfig" in stack.secrets.keys and isinstance(reached, str):
        reached = pulumi.Output.secret(reached)
    # Nobody tells one of a cluster that the stack names itself, by a context of kubectl's for example.
    identifier = cloud.cluster.identifier if cloud and kubeconfig is not None else None
    ready = cloud.cluster.ready if cloud else ()
    after = pulumi.ResourceOptions(depends_on=list(ready))
    cluster = cluster_provider("cluster", reached, settings.kube_context, after, identifier)
    options = pulumi.ResourceOptions(provider=cluster)
    if settings.kserve.install:
        installed = translate.platform(settings, access, unread=checked.charts_unread)
        options = _after(options, KServePlatform("kserve", installed, options).ready)
    if settings.delivery != "cluster":
        return None
    if stack.secrets.in_pods:
        options = pulumi.ResourceOptions.merge(options, secrets.kept_in_objects())
    if settings.create_namespace:
        name = settings.namespace
        hooks = guarded("Namespace", name, access)
        own = imported(options, "Namespace", settings.import_existing, name, hooks=hooks)
        metadata: Any = {"name": name, "annotations": marked()}
        options = _after(options, kubernetes.core.v1.Namespace(name, metadata=metadata, opts=own))
    if checked.tested:
        kept = SmokeTestArgs(
            config_map=placement.config_map_name(settings, pulumi.get_stack()),
            keeps_name=stack.listed and checked.was_listed,
            access=access,
            namespace=settings.namespace,
            **vars(checked.tested),
        )
        options = _after(options, SmokeTest("smoke-test", kept, options))
    shared = {str(m.shared_runtime): m for m in reversed(stack.models) if m.shared_runtime}
    uris: dict[str, list[pulumi.Output[str]]] = {name: [] for name in shared}
    runtimes = {
        name: SharedRuntime(
            name,
            translate.shared_runtime(shared[name], access),
            _after(options, once_there(_first_image_after_all(uris[name]))),
        )
        for name in sorted(shared)
    }
    return Destination(options, access, runtimes, cloud, uris)


async def _first_image_after_all(uris: list[pulumi.Output[str]]) -> None:
    """Return once no image of models that share a runtime is waited for; some may have failed, and not all.

    KServe makes new pods for all these models as soon as their runtime changes. It has to for those whose
    images are there, whatever became of the others.

    Args:
        uris: of the models. Pulumi's event loop runs this once the program has declared them.

    Raises:
        Exception: of the first image, where there is none of them.
    """
    found = await asyncio.gather(*(uri.future() for uri in uris), return_exceptions=True)
    failed = [error for error in found if isinstance(error, BaseException)]
    # With `--continue-on-error` the URI of an image that failed is unknown.
    there = found if pulumi.runtime.is_dry_run() else [uri for uri in found if uri is not None]
    if found and len(failed) == len(there):
        raise failed[0] if failed else pulumi.RunError("none of the images of its models is there")


def to_cluster(
    parent: pulumi.Resource,
    name: str,
    settings: Settings,
    storage_uri: pulumi.Output[str],
    destination: Destination,
) -> Delivered:
    """Declare a model's objects, each after what its pods need.

    Args:
        parent: the model's component. name: of its resources.
        settings: the model's.
        storage_uri: what is served.
        destination: where.
    """
    options = pulumi.ResourceOptions.merge(destination.options, pulumi.ResourceOptions(parent=parent))
    if destination.cloud and settings.google:
        options = _after(options, destination.cloud.pools[settings.google.nodes.name])

    def own(former: str) -> pulumi.ResourceOptions:
        # Only a stack's only model was without a component of its own.
        return options if settings.name else pulumi.ResourceOptions.merge(options, formerly(parent, former))

    account, access = None, destination.access
    if settings.needs_pull_access:
        rights = PullAccess(f"{name}-pull-access", translate.pull_access(settings), own("pull-access"))
        account = rights.service_account
    if settings.egress.restrict:
        # Before the pods: none of them ever runs without it.
        policy = EgressPolicy(f"{name}-egress", translate.egress(settings, access), own("egress"))
        options = _after(options, policy)
    if closed := translate.ingress(settings, access):
        options = _after(options, IngressPolicy(f"{name}-ingress", closed, options))
    if settings.pre_pull and not settings.idle:
        pulled = translate.pre_pull(settings, storage_uri, account, access)
        storage_uri = PrePull(f"{name}-pre-pull", pulled, own("pre-pull")).storage_uri
    runtime = destination.runtimes.get(settings.shared_runtime or "")
    if runtime:
        destination.uris[runtime.runtime_name].append(storage_uri)
    served = translate.service(settings, storage_uri, account, runtime, access)
    own_service = pulumi.ResourceOptions.merge(options, formerly(parent, settings.service_name))
    service = ModelService(name, served, own_service)
    uri = service.storage_uri
    if scaling := autoscaling.of(settings):
        args = translate.autoscaler(settings, scaling, access)
        scaler = Autoscaler(f"{name}-autoscaler", args, _after(options, once_served(service)))
        return Delivered(uri, pulumi.Output.all(uri, scaler.name))
    return Delivered(uri, uri)


def _after(
    options: pulumi.ResourceOptions, *resources: pulumi.Input[pulumi.Resource]
) -> pulumi.ResourceOptions:
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
    built = [model for model in stack.models if not model.image]
    if preview and any(not (project / model.lock_path).exists() for model in built):
        pulumi.log.info("delivery gitops: without a lock there is nothing to show yet")
        return
    folders = gitops.folders(stack, project, name=pulumi.get_stack(), failed=failed)
    work = gitops.changes if preview else gitops.write
    try:
        changed = [change for folder in folders for change in work(folder)]
    except (InputError, OSError) as error:
        raise pulumi.RunError(f"the image is pushed, and its objects are not written: {error}") from None
    pulumi.log.info(_shown(changed, stack.shared, "" if preview else _then(changed)))


def _then(changed: list[gitops.Change]) -> str:
    """Return what a person does next. A sync by hand leaves objects whose files are gone."""
    removed = any(change.what == "removed" for change in changed)
    prune = " with prune (argocd app sync --prune), as files are removed" if removed else ""
    return f": commit and push, then synchronise in Argo CD{prune}"


def _shown(changed: list[gitops.Change], settings: Settings, then: str = "") -> str:
    folder = settings.gitops.folder if settings.gitops else ""
    if not changed:
        return f"{folder}: nothing changes"
    lines = [f"{folder}: {len(changed)} files change{then}"]
    for change in changed:
        lines += [f"{change.what}: {change.path.name}", *(f"  {line}" for line in change.diff)]
    shown = list(itertools.islice(lines, MOST_LINES))
    return "\n".join([*shown, *(["…"] if len(lines) > MOST_LINES else [])])
