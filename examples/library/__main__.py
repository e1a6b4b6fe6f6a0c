"""A program with resources of its own, one of which is a served model.

`python -m modelcar_kserve lock assistant --hub OWNER/NAME` locks the model here; the lock is committed.
"""

import pulumi
import pulumi_kubernetes as kubernetes
from modelcar_kserve import (
    ClusterAccess,
    EgressPolicy,
    EgressPolicyArgs,
    ModelcarImage,
    ModelcarImageArgs,
    ModelService,
    ModelServiceArgs,
    ServerResources,
    VllmServer,
)

config = pulumi.Config()
lock = "modelcar/models/assistant/model.lock"
access = ClusterAccess(config.get("kubeconfig"))
cluster = kubernetes.Provider("cluster", kubeconfig=access.kubeconfig, enable_server_side_apply=True)
in_cluster = pulumi.ResourceOptions(provider=cluster)
space = kubernetes.core.v1.Namespace("assistant", metadata={"name": "assistant"}, opts=in_cluster)
namespace = space.metadata.name

image = ModelcarImage("assistant", ModelcarImageArgs(lock=lock, registry=config.require("registry")))
egress = EgressPolicyArgs(service="assistant", namespace=namespace, access=access)
closed = EgressPolicy("assistant", egress, in_cluster)
service = ModelService(
    "assistant",
    ModelServiceArgs(
        storage_uri=image.storage_uri,
        namespace=namespace,
        server=VllmServer(image=config.require("serverImage"), max_model_len=2048),
        resources=ServerResources(gpus=1, memory="16Gi"),
        lock=lock,  # checks the server's arguments against the model
        access=access,
    ),
    # No pod ever runs without the policy.
    pulumi.ResourceOptions(provider=cluster, depends_on=[closed]),
)

# What is the program's own uses what the service says of itself, once it serves.
kubernetes.core.v1.ConfigMap(
    "client",
    metadata={"name": "client", "namespace": namespace},
    data={"endpoint": service.endpoint, "model": service.served_model_name},
    opts=in_cluster,
)
pulumi.export("digest", image.digest)
