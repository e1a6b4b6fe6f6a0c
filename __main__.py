"""One model, from weights to a served endpoint: settings, registry, node pool, image, service, outputs."""

from pathlib import Path

import pulumi
import pulumi_kubernetes as kubernetes

from components import delivery, former_image, reachability
from components import settings as stack
from components.google.cloud import GoogleCloud
from components.google.cluster import require_adopted
from components.idle import idle_cost
from components.kserve_platform import KServePlatform, KServePlatformArgs, verify
from components.model_lock import model_lock
from components.modelcar_image import ModelcarImage, ModelcarImageArgs
from modelcar.base import read_base
from modelcar.errors import InputError
from operations import gitops, mode, placement

PROJECT = Path(__file__).absolute().parent


def main() -> None:
    """Declare the stack's resources; everything is checked before the first one."""
    settings = stack.from_pulumi(PROJECT)
    lock = model_lock(settings, PROJECT)
    if settings.google:
        require_adopted(settings.google)
    preview = pulumi.runtime.is_dry_run()
    reachable = reachability.check(settings, required=not preview)
    mode.require(settings, reachable=reachable)
    former = former_image.find(settings, preview=preview)
    gitops.check(settings, PROJECT, lock)
    tested = None
    if settings.placement == "auto" and settings.delivery == "cluster":
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
    kubeconfig = cloud.cluster.kubeconfig if cloud and not own_cluster else None
    needed: list[pulumi.Resource] = [cloud.pool] if cloud else []
    if settings.uses_cluster:
        cluster = kubernetes.Provider(
            "cluster",
            kubeconfig=settings.kubeconfig if kubeconfig is None else kubeconfig,
            context=settings.kube_context,
            enable_server_side_apply=True,
        )
        in_cluster = pulumi.ResourceOptions(provider=cluster)
        if settings.kserve.install:
            arguments = KServePlatformArgs(settings.kserve, settings.deployment_mode)
            needed.append(KServePlatform("kserve", arguments, in_cluster))
        elif settings.kserve.verify and reachable:
            needed.append(verify(settings.kserve, in_cluster))

    if settings.delivery == "cluster":
        after = pulumi.ResourceOptions(provider=cluster, depends_on=needed)
        service = delivery.to_cluster(
            settings, served.storage_uri, after, tested=tested, kubeconfig=kubeconfig
        )
    else:
        service = delivery.to_git(settings, PROJECT, served.storage_uri)

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
