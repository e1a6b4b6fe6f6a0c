"""A model that somebody else deployed, in a namespace that is there: taken over as it is.

`pulumi up` takes the objects of `imports` into the stack and changes nothing. Take the kinds out afterwards:
the next preview shows what this program would change.
"""

import pulumi
import pulumi_kubernetes as kubernetes
from modelcar_kserve import (
    ClusterAccess,
    EgressPolicy,
    EgressPolicyArgs,
    ModelService,
    ModelServiceArgs,
    ServerResources,
    VllmServer,
)

config = pulumi.Config()
access = ClusterAccess(config.get("kubeconfig"))
cluster = kubernetes.Provider("cluster", kubeconfig=access.kubeconfig, enable_server_side_apply=True)
in_cluster = pulumi.ResourceOptions(provider=cluster)

egress = EgressPolicyArgs(service="assistant", namespace="models", imports=["NetworkPolicy"])
EgressPolicy("assistant", egress, in_cluster)
service = ModelService(
    "assistant",
    ModelServiceArgs(
        storage_uri=config.require("storageUri"),
        namespace="models",
        server=VllmServer(image=config.require("serverImage"), max_model_len=2048),
        resources=ServerResources(gpus=1, memory="16Gi"),
        access=access,
        imports=["InferenceService", "ServingRuntime"],
    ),
    in_cluster,
)
pulumi.export("serves", service.storage_uri)
