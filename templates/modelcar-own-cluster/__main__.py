"""A locked model as an image, served by KServe on a cluster that is there already."""

import re

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
model = config.require("model")
# The InferenceService is called as the model, where Kubernetes allows that.
served_as = re.sub(r"[^-a-z0-9]", "-", model)
lock = f"modelcar/models/{model}/model.lock"
context = config.get("kubeContext") or None
access = ClusterAccess(context=context)
cluster = kubernetes.Provider("cluster", context=context, enable_server_side_apply=True)
in_cluster = pulumi.ResourceOptions(provider=cluster)
name = config.require("namespace")
space = kubernetes.core.v1.Namespace(name, metadata={"name": name}, opts=in_cluster)

image = ModelcarImage(model, ModelcarImageArgs(lock=lock, registry=config.require("registry")))
egress = EgressPolicyArgs(service=served_as, namespace=space.metadata.name, access=access)
closed = EgressPolicy(model, egress, in_cluster)
service = ModelService(
    model,
    ModelServiceArgs(
        name=served_as,
        storage_uri=image.storage_uri,
        namespace=space.metadata.name,
        server=VllmServer(image=config.require("serverImage"), served_model_name=model),
        resources=ServerResources(gpus=config.require_int("gpus"), memory=config.require("memory")),
        lock=lock,  # checks the server's arguments against the model
        access=access,
    ),
    # No pod ever runs without the policy, which lets it reach no model hub.
    pulumi.ResourceOptions(provider=cluster, depends_on=[closed]),
)

pulumi.export("digest", image.digest)
pulumi.export("endpoint", service.endpoint)
pulumi.export("model", service.served_model_name)
