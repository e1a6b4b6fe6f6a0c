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

runtime = SharedRuntime(
    "vllm",
    SharedRuntimeArgs(namespace=namespace, server=VllmServer(image=server_image), access=access),
    in_cluster,
)
for name, length in {"chat": "16k", "code": "32k"}.items():
    lock = f"modelcar/models/{name}/model.lock"
    image = ModelcarImage(name, ModelcarImageArgs(lock=lock, registry=registry))
    service = ModelService(
        name,
        ModelServiceArgs(
            storage_uri=image.storage_uri,
            namespace=namespace,
            server=VllmServer(image=server_image, max_model_len=length),
            shared_runtime=runtime,
            access=access,
        ),
        in_cluster,
    )
    pulumi.export(name, service.endpoint)
