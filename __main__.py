"""One model, from weights to a served endpoint: settings, registry, node pool, image, service, outputs."""

from pathlib import Path

import pulumi
import pulumi_kubernetes as kubernetes

from components import reachability
from components import settings as stack
from components.model_service import ModelService, ModelServiceArgs
from components.modelcar_image import ModelcarImage, ModelcarImageArgs
from modelcar.errors import InputError

PROJECT = Path(__file__).absolute().parent


def main() -> None:
    """Declare the stack's resources; everything is checked before the first one."""
    settings = stack.from_pulumi(PROJECT)
    if settings.check_reachable and not pulumi.runtime.is_dry_run():
        reachability.require(settings)

    image = ModelcarImage(
        settings.image_name,
        ModelcarImageArgs(
            weights=Path(settings.weights),
            registry=settings.registry,
            name=settings.image_name,
            base_image=settings.base_image,
            builder=settings.builder,
            insecure=settings.registry_insecure,
            project=PROJECT,
        ),
    )

    cluster = kubernetes.Provider(
        "cluster",
        kubeconfig=settings.kubeconfig,
        context=settings.kube_context,
        enable_server_side_apply=True,
    )
    in_cluster = pulumi.ResourceOptions(provider=cluster)
    if settings.create_namespace:
        namespace = kubernetes.core.v1.Namespace(
            settings.namespace, metadata={"name": settings.namespace}, opts=in_cluster
        )
        in_cluster = pulumi.ResourceOptions.merge(in_cluster, pulumi.ResourceOptions(depends_on=[namespace]))
    service = ModelService(
        settings.service_name, ModelServiceArgs(storage_uri=image.storage_uri, settings=settings), in_cluster
    )

    pulumi.export("modelDigest", image.digest)
    pulumi.export("storageUri", image.storage_uri)
    pulumi.export("imageReference", image.reference)
    pulumi.export("weightsDigest", image.weights_digest)
    pulumi.export("modelBytes", image.size_bytes)
    pulumi.export("serviceName", service.name)
    pulumi.export("namespace", service.namespace)
    pulumi.export("servedModelName", settings.model_name)


try:
    main()
except InputError as error:
    raise pulumi.RunError(f"the stack's settings or weights are not fit:\n{error}") from None
