"""Two models with one ServingRuntime: the same server, each with its own weights, arguments and pods."""

import pulumi
import pulumi_kubernetes as kubernetes
from modelcar_kserve import (
    ClusterAccess,
    ModelcarImage,
    ModelcarImageArgs,
    ModelService,
    ModelServiceArgs,
    SharedRuntime,
    SharedRuntimeArgs,
    VllmServer,
)

config = pulumi.Config()
registry, server_image = config.require("registry"), config.require("serverImage")
access = ClusterAccess(config.get("kubeconfig"))
cluster = kubernetes.Provider("cluster", kubeconfig=access.kubeconfig, enable_server_side_apply=True)
in_cluster = pulumi.ResourceOptions(provider=cluster)
space = kubernetes.core.v1.Namespace("models", metadata={"name": "models"}, opts=in_cluster)
namespace = space.metadata.name

images = {
    name: ModelcarImage(name, ModelcarImageArgs(lock=f"modelcar/models/{name}/model.lock", registry=registry))
    for name in ("chat", "code")
}
# A change of it makes new pods for both: once their images are there, and signed where they are to be.
there = pulumi.Output.all(*(image.storage_uri for image in images.values())).apply(
    lambda _: list(images.values())
)
runtime = SharedRuntime(
    "vllm",
    SharedRuntimeArgs(namespace=namespace, server=VllmServer(image=server_image), access=access),
    pulumi.ResourceOptions(provider=cluster, depends_on=there),
)
for name, length in {"chat": "16k", "code": "32k"}.items():
    service = ModelService(
        name,
        ModelServiceArgs(
            storage_uri=images[name].storage_uri,
            namespace=namespace,
            server=VllmServer(image=server_image, max_model_len=length),
            shared_runtime=runtime,
            access=access,
        ),
        in_cluster,
    )
    pulumi.export(name, service.endpoint)
