"""A registry, a GKE cluster with GPU nodes, KServe, and a locked model that is served there."""

import re

import pulumi
import pulumi_kubernetes as kubernetes
from modelcar_kserve import (
    ClusterAccess,
    EgressPolicy,
    EgressPolicyArgs,
    KServePlatform,
    KServePlatformArgs,
    ModelcarImage,
    ModelcarImageArgs,
    ModelService,
    ModelServiceArgs,
    VllmServer,
    google,
)

config, google_config = pulumi.Config(), pulumi.Config("gcp")
model = config.require("model")
# The InferenceService is called as the model, where Kubernetes allows that.
served_as = re.sub(r"[^-a-z0-9]", "-", model)
lock = f"modelcar/models/{model}/model.lock"

settings = google.GoogleSettings(
    project=google_config.require("project"),
    region=google_config.require("region"),
    cluster=google.ClusterSettings(name="models", create=True),
    nodes=google.NodeSettings(
        gpu=config.require("gpu"),
        machine_type=config.require("machineType"),
        disk_gb=config.require_int("diskGb"),
    ),
)
cloud = google.GoogleCloud("models", google.GoogleCloudArgs(settings=settings))
kubeconfig = cloud.cluster.kubeconfig  # without credentials: gke-gcloud-auth-plugin has them
access = ClusterAccess(kubeconfig)
cluster = kubernetes.Provider(
    "cluster",
    # Another address or certificate of the same cluster makes nothing anew.
    cluster_identifier=cloud.cluster.identifier,
    kubeconfig=kubeconfig,
    enable_server_side_apply=True,
    # The cluster can run pods then, and its nodes may read the registry.
    opts=pulumi.ResourceOptions(depends_on=[cloud]),
)
in_cluster = pulumi.ResourceOptions(provider=cluster)
kserve = KServePlatform("kserve", KServePlatformArgs(access=access), in_cluster)
space = kubernetes.core.v1.Namespace("models", metadata={"name": "models"}, opts=in_cluster)

image = ModelcarImage(model, ModelcarImageArgs(lock=lock, registry=cloud.registry.path))
egress = EgressPolicyArgs(service=served_as, namespace=space.metadata.name, access=access)
closed = EgressPolicy(model, egress, in_cluster)
service = ModelService(
    model,
    ModelServiceArgs(
        name=served_as,
        storage_uri=image.storage_uri,
        namespace=space.metadata.name,
        server=VllmServer(image=config.require("serverImage"), served_model_name=model),
        node_pool=cloud.pools[settings.nodes.name].name,
        lock=lock,  # checks the server's arguments against the model
        access=access,
    ),
    # KServe's webhooks admit it, and no pod ever runs without the policy.
    pulumi.ResourceOptions(provider=cluster, depends_on=[kserve.ready, closed]),
)

pulumi.export("digest", image.digest)
pulumi.export("endpoint", service.endpoint)
pulumi.export("model", service.served_model_name)
