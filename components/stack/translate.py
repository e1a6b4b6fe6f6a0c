"""From a stack's settings to the arguments of components, which know no stack."""

from __future__ import annotations

from typing import Any, Literal

import pulumi

from components.cluster.guard import ClusterAccess
from components.cluster.webhooks import firewall_rule
from components.config.autoscaling import AutoscalingSettings
from components.config.settings import Settings
from components.kserve.autoscaler import AutoscalerArgs
from components.kserve.egress import EgressPolicyArgs
from components.kserve.ingress import IngressPolicyArgs
from components.kserve.kserve_platform import KServePlatformArgs
from components.kserve.model_service import ModelServiceArgs
from components.kserve.pre_pull import PrePullArgs
from components.kserve.pull_access import PullAccessArgs
from components.kserve.server import CustomServer, Replicas, ServerResources, VllmServer
from components.kserve.shared_runtime import SharedRuntime, SharedRuntimeArgs


def access(settings: Settings, made: pulumi.Output[str] | None) -> ClusterAccess:
    """Return how the stack's cluster is asked; made: kubeconfig of one that this program knows by itself."""
    if made is not None:
        return ClusterAccess(made, settings.kube_context)
    context = settings.kube_context or (None if settings.kubeconfig else settings.own_context)
    return ClusterAccess(settings.kubeconfig, context)


def server(settings: Settings) -> VllmServer | CustomServer:
    """Return the model server."""
    common: dict[str, Any] = {
        "image": settings.server_image,
        "command": settings.server_command,
        "args": settings.server_args,
        "env": dict(entry.split("=", 1) for entry in settings.server_env),
        "port": settings.server_port,
        "health_path": settings.health_path,
        "served_model_name": settings.model_name,
        "writable_paths": settings.server_writable_paths,
        "host_paths": settings.server_host_paths,
        "read_ahead": settings.read_ahead,
    }
    if settings.runtime == "custom":
        return CustomServer(**common)
    said = (
        {name: getattr(settings.vllm, name) for name in settings.vllm.model_fields_set}
        if settings.vllm
        else {}
    )
    return VllmServer(**common, **said, kernels=settings.kernel_mode)


def resources(settings: Settings) -> ServerResources:
    """Return what one pod asks for."""
    return ServerResources(
        gpus=settings.gpu_count,
        cpu=settings.cpu,
        cpu_limit=settings.cpu_limit,
        memory=settings.memory,
        shared_memory=settings.shared_memory,
    )


def service(
    settings: Settings,
    storage_uri: pulumi.Input[str],
    account: pulumi.Input[str] | None,
    runtime: SharedRuntime | None,
    asked: ClusterAccess,
) -> ModelServiceArgs:
    """Return the arguments of a model's service."""
    if settings.placement == "auto":
        raise ValueError("a placement of auto is found out before anything is declared")
    return ModelServiceArgs(
        storage_uri=storage_uri,
        namespace=settings.namespace,
        server=server(settings),
        resources=resources(settings),
        replicas=Replicas(
            min=settings.min_replicas,
            max=settings.max_replicas,
            idle=settings.idle,
            rollout=settings.rollout,
            canary_traffic_percent=settings.canary_traffic_percent,
        ),
        name=settings.service_name,
        deployment_mode=settings.deployment_mode,
        knative=settings.knative,
        placement=settings.placement,
        shared_runtime=runtime,
        scheduling=settings.scheduling,
        probes=settings.probes,
        termination=settings.termination,
        autoscaling=settings.autoscaling,
        start_timeout_seconds=settings.start_timeout_seconds,
        node_pool=settings.pool_name,
        service_account=account,
        access=asked,
        await_ready=settings.await_ready,
        imports=[kind for kind in settings.import_objects if kind != "NetworkPolicy"],
    )


def shared_runtime(settings: Settings, asked: ClusterAccess) -> SharedRuntimeArgs:
    """Return the arguments of the ServingRuntime that a model shares with others."""
    return SharedRuntimeArgs(
        namespace=settings.namespace,
        server=server(settings),
        deployment_mode=settings.deployment_mode,
        shared_memory=settings.shared_memory,
        probes=settings.probes,
        termination=settings.termination,
        start_timeout_seconds=settings.start_timeout_seconds,
        name=settings.shared_runtime,
        access=asked,
    )


def pull_access(settings: Settings) -> PullAccessArgs:
    """Return the arguments of the right to pull; the password stays a secret."""
    password = settings.registry_password
    return PullAccessArgs(
        service=settings.service_name,
        namespace=settings.namespace,
        host=settings.registry.partition("/")[0],
        secret=settings.pull_secret,
        username=settings.registry_username,
        password=pulumi.Output.secret(password.get_secret_value()) if password else None,
    )


def egress(settings: Settings, asked: ClusterAccess) -> EgressPolicyArgs:
    """Return the arguments of the policy for what pods may connect to."""
    return EgressPolicyArgs(
        service=settings.service_name,
        namespace=settings.namespace,
        settings=settings.egress,
        access=asked,
        imports=[kind for kind in settings.import_objects if kind == "NetworkPolicy"],
    )


def ingress(settings: Settings, asked: ClusterAccess) -> IngressPolicyArgs | None:
    """Return the arguments of the policy for who may connect to pods; None where everybody may."""
    if settings.ingress is None:
        return None
    return IngressPolicyArgs(
        service=settings.service_name, namespace=settings.namespace, settings=settings.ingress, access=asked
    )


def pre_pull(
    settings: Settings,
    storage_uri: pulumi.Input[str],
    account: pulumi.Input[str] | None,
    asked: ClusterAccess,
) -> PrePullArgs:
    """Return the arguments of what pulls an image to the nodes beforehand."""
    return PrePullArgs(
        storage_uri=storage_uri,
        server_image=settings.server_image,
        service=settings.service_name,
        namespace=settings.namespace,
        gpus=settings.gpu_count,
        scheduling=settings.scheduling,
        node_pool=settings.pool_name,
        service_account=account,
        access=asked if settings.await_ready else None,
        start_timeout_seconds=settings.start_timeout_seconds,
        closed=settings.egress.restrict,
    )


def autoscaler(settings: Settings, scaling: AutoscalingSettings, asked: ClusterAccess) -> AutoscalerArgs:
    """Return the arguments of what keeps the number of pods."""
    return AutoscalerArgs(
        service=settings.service_name,
        namespace=settings.namespace,
        scaling=scaling,
        min_replicas=settings.min_replicas,
        max_replicas=settings.max_replicas,
        start_timeout_seconds=settings.start_timeout_seconds,
        access=asked,
    )


def platform(settings: Settings, asked: ClusterAccess, *, unread: bool) -> KServePlatformArgs:
    """Return the arguments of KServe; unread: whether its charts are out of reach, in a preview."""
    own = settings.kserve
    taken_over: list[Literal["Namespace"]] = []
    if "KServeNamespaces" in settings.import_existing:
        taken_over.append("Namespace")
    return KServePlatformArgs(
        version=own.version,
        mode=settings.deployment_mode,
        namespace=own.namespace,
        chart_repository=own.chart_repository,
        install_cert_manager=own.install_cert_manager,
        cert_manager_version=own.cert_manager_version,
        cert_manager_repository=own.cert_manager_repository,
        image_registry=own.image_registry,
        modelcar_uid=own.modelcar_uid,
        modelcar_cpu=own.modelcar_cpu,
        modelcar_memory=own.modelcar_memory,
        unread=unread,
        firewall_rule=firewall_rule(settings),
        access=asked,
        imports=taken_over,
    )
