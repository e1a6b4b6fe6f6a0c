"""One model, from weights to a served endpoint: settings, registry, node pool, image, service, outputs."""

from pathlib import Path

import pulumi
import pulumi_kubernetes as kubernetes

from components import former_image, reachability
from components import settings as stack
from components.egress import EgressPolicy, EgressPolicyArgs
from components.google.cloud import GoogleCloud
from components.google.cluster import require_adopted
from components.idle import idle_cost
from components.kserve_platform import KServePlatform, KServePlatformArgs, verify
from components.model_lock import model_lock
from components.model_service import ModelService, ModelServiceArgs
from components.modelcar_image import ModelcarImage, ModelcarImageArgs
from components.pull_access import PullAccess, PullAccessArgs
from components.smoke_test import SmokeTest
from modelcar.base import read_base
from modelcar.errors import InputError
from operations import placement

PROJECT = Path(__file__).absolute().parent


def main() -> None:
    """Declare the stack's resources; everything is checked before the first one."""
    settings = stack.from_pulumi(PROJECT)
    lock = model_lock(settings, PROJECT)
    if settings.google:
        require_adopted(settings.google)
    preview = pulumi.runtime.is_dry_run()
    reachable = reachability.check(settings, required=not preview)
    former = former_image.find(settings, preview=preview)
    tested = None
    if settings.placement == "auto":
        tested = placement.find(settings, PROJECT, preview=preview, reachable=reachable, say=pulumi.log.info)
        settings = settings.model_copy(update={"placement": tested.placement})

    size = lock.total_size if lock else 0

    # The registry, its reader, the cluster and its GPU nodes, where they are Google's.
    cloud = GoogleCloud("modelcar", settings.google, size) if settings.google else None

    image = ModelcarImage(
        settings.repository,
        ModelcarImageArgs(
            lock,
            read_base(settings.architecture),
            registry=settings.registry,
            name=settings.repository,
            builder=settings.builder,
            insecure=settings.registry_insecure,
            project=PROJECT,
            hub_endpoint=settings.hub_endpoint,
            fetch_on=settings.fetch_on,
            sbom=settings.sbom,
            signature=settings.signature,
        ),
        pulumi.ResourceOptions(depends_on=[cloud.registry] if cloud else []),
    )

    served = former_image.served(settings, PROJECT, image, former)

    own_cluster = settings.kubeconfig or settings.kube_context
    cluster = kubernetes.Provider(
        "cluster",
        kubeconfig=cloud.cluster.kubeconfig if cloud and not own_cluster else settings.kubeconfig,
        context=settings.kube_context,
        enable_server_side_apply=True,
    )
    in_cluster = pulumi.ResourceOptions(provider=cluster)
    needed: list[pulumi.Resource] = [cloud.pool] if cloud else []
    if settings.kserve.install:
        arguments = KServePlatformArgs(settings.kserve, settings.deployment_mode)
        needed.append(KServePlatform("kserve", arguments, in_cluster))
    elif settings.kserve.verify and reachable:
        needed.append(verify(settings.kserve, in_cluster))
    if settings.create_namespace:
        name = settings.namespace
        needed.append(kubernetes.core.v1.Namespace(name, metadata={"name": name}, opts=in_cluster))
    in_cluster = pulumi.ResourceOptions.merge(in_cluster, pulumi.ResourceOptions(depends_on=needed))

    access = (
        PullAccess("pull-access", PullAccessArgs.of(settings), in_cluster)
        if settings.needs_pull_access
        else None
    )
    if tested:
        name = placement.config_map_name(settings)
        smoke = SmokeTest("smoke-test", name, settings.namespace, vars(tested), in_cluster)
        in_cluster = pulumi.ResourceOptions.merge(in_cluster, pulumi.ResourceOptions(depends_on=[smoke]))
    if settings.egress.restrict:
        policed = EgressPolicyArgs(settings.service_name, settings.namespace, settings.egress)
        policy = EgressPolicy("egress", policed, in_cluster)
        # Before the pods: none of them ever runs without it.
        in_cluster = pulumi.ResourceOptions.merge(in_cluster, pulumi.ResourceOptions(depends_on=[policy]))
    service = ModelService(
        settings.service_name,
        ModelServiceArgs(
            served.storage_uri,
            settings,
            service_account=access.service_account if access else None,
            kubeconfig=cloud.cluster.kubeconfig if cloud and not own_cluster else None,
        ),
        in_cluster,
    )

    pulumi.export("modelDigest", served.digest)
    pulumi.export("storageUri", served.storage_uri)
    pulumi.export("imageReference", served.reference)
    pulumi.export("lockDigest", served.lock_digest)
    pulumi.export("modelBytes", served.size_bytes)
    pulumi.export("serviceName", service.name)
    pulumi.export("namespace", service.namespace)
    pulumi.export("servedModelName", settings.model_name)
    pulumi.export("idleCost", idle_cost(settings, size))
    if cloud:
        pulumi.export("registry", cloud.registry.path)
        pulumi.export("clusterName", cloud.cluster.name)
        pulumi.export("clusterLocation", cloud.cluster.location)
        pulumi.export("nodePool", cloud.pool.name)
        pulumi.export("nodeDiskGb", cloud.pool.disk_gb)
        pulumi.export("nodeServiceAccount", cloud.node_account)


try:
    main()
except InputError as error:
    raise pulumi.RunError(f"the stack's settings or weights are not fit:\n{error}") from None
