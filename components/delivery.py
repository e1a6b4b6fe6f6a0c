"""How a model's objects get into the cluster: applied by this program, or by Argo CD out of Git."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import pulumi
import pulumi_kubernetes as kubernetes

from components.egress import EgressPolicy, EgressPolicyArgs
from components.model_service import ModelService, ModelServiceArgs
from components.pre_pull import PrePull, PrePullArgs
from components.pull_access import PullAccess, PullAccessArgs
from components.settings import Settings
from components.smoke_test import SmokeTest
from modelcar.errors import InputError
from operations import gitops, placement

#: Lines of differences that a preview shows; a review has the rest in Git.
MOST_LINES = 200


@dataclass(frozen=True)
class Delivered:
    """name, namespace: of the InferenceService."""

    name: pulumi.Output[str]
    namespace: pulumi.Output[str]


def to_cluster(
    settings: Settings,
    storage_uri: pulumi.Output[str],
    in_cluster: pulumi.ResourceOptions,
    *,
    tested: placement.Found | None = None,
    kubeconfig: pulumi.Input[str] | None = None,
) -> Delivered:
    """Declare the model's objects, each after what its pods need.

    Args:
        settings: of the stack.
        storage_uri: what is served.
        in_cluster: the cluster's provider, and what comes before.
        tested: what the smoke test found out, where it was asked.
        kubeconfig: of the cluster, where the settings have none.
    """
    if settings.create_namespace:
        name = settings.namespace
        namespace = kubernetes.core.v1.Namespace(name, metadata={"name": name}, opts=in_cluster)
        in_cluster = _after(in_cluster, namespace)
    access = (
        PullAccess("pull-access", PullAccessArgs.of(settings), in_cluster)
        if settings.needs_pull_access
        else None
    )
    if tested:
        name = placement.config_map_name(settings)
        smoke = SmokeTest("smoke-test", name, settings.namespace, vars(tested), in_cluster)
        in_cluster = _after(in_cluster, smoke)
    if settings.egress.restrict:
        policed = EgressPolicyArgs(settings.service_name, settings.namespace, settings.egress)
        # Before the pods: none of them ever runs without it.
        in_cluster = _after(in_cluster, EgressPolicy("egress", policed, in_cluster))
    account = access.service_account if access else None
    if settings.pre_pull and not settings.idle:
        arguments = PrePullArgs(storage_uri, settings, account, kubeconfig)
        storage_uri = PrePull("pre-pull", arguments, in_cluster).storage_uri
    service = ModelService(
        settings.service_name, ModelServiceArgs(storage_uri, settings, account, kubeconfig), in_cluster
    )
    return Delivered(service.name, service.namespace)


def _after(options: pulumi.ResourceOptions, *resources: pulumi.Resource) -> pulumi.ResourceOptions:
    return pulumi.ResourceOptions.merge(options, pulumi.ResourceOptions(depends_on=list(resources)))


def to_git(settings: Settings, project: Path, storage_uri: pulumi.Output[str]) -> Delivered:
    """Write the model's objects into a Git checkout, once the image is in the registry; a person commits.

    A preview shows the difference and writes nothing.

    Raises (inside of the outputs):
        pulumi.RunError: a file cannot be written.
    """
    if pulumi.runtime.is_dry_run() and not (project / settings.lock_path).exists():
        pulumi.log.info("delivery gitops: without a lock there is nothing to show yet")
        return Delivered(
            pulumi.Output.from_input(settings.service_name), pulumi.Output.from_input(settings.namespace)
        )
    folders = gitops.folders(settings, project)
    pending = [change for folder, documents in folders for change in gitops.changes(folder, documents)]
    if pulumi.runtime.is_dry_run():
        pulumi.log.info(_shown(pending, settings))
        written = storage_uri
    else:

        def write(found: str) -> str:
            try:
                for folder, documents in folders:
                    gitops.write(folder, documents)
            except (InputError, OSError) as error:
                raise pulumi.RunError(
                    f"the image is pushed, and its objects are not written: {error}"
                ) from None
            pulumi.log.info(_shown(pending, settings, ": commit and push, then synchronise in Argo CD"))
            return found

        written = storage_uri.apply(write)
    return Delivered(
        written.apply(lambda _: settings.service_name), written.apply(lambda _: settings.namespace)
    )


def _shown(pending: list[gitops.Change], settings: Settings, then: str = "") -> str:
    folder = settings.gitops.folder if settings.gitops else ""
    if not pending:
        return f"{folder}: nothing changes"
    lines = [f"{folder}: {len(pending)} files change{then}"]
    for change in pending:
        lines += [f"{change.what}: {change.path.name}", *(f"  {line}" for line in change.diff)]
    shown = list(itertools.islice(lines, MOST_LINES))
    return "\n".join([*shown, *(["…"] if len(lines) > MOST_LINES else [])])
