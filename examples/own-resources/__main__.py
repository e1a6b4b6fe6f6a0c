"""A registry, a cluster and nodes of the program's own, which hand their outputs to the components.

Needs the extra `google` (pip install modelcar-kserve[google]) and `pulumi config set gcp:project ID`.
"""

import modelcar_kserve as modelcar
import pulumi
import pulumi_gcp as gcp
import pulumi_kubernetes as kubernetes
from modelcar_kserve import google

project, region = pulumi.Config("gcp").require("project"), "europe-west4"
account = google.NodeServiceAccount("nodes", google.NodeServiceAccountArgs(project=project, purpose="models"))
place = {"project": project, "location": region}
repository = gcp.artifactregistry.Repository("models", repository_id="models", format="DOCKER", **place)
reader = pulumi.Output.concat("serviceAccount:", account.email)
role = "roles/artifactregistry.reader"
readable = gcp.artifactregistry.RepositoryIamMember(
    "models", repository=repository.repository_id, role=role, member=reader, **place
)
serving = gcp.container.Cluster("serving", initial_node_count=1, remove_default_node_pool=True, **place)
nodes = google.GpuNodePoolArgs(
    project=project,
    cluster=serving.name,
    location=serving.location,
    nodes=google.NodeSettings(gpu="nvidia-l4", machine_type="g2-standard-8"),
    service_account=account.email,
)
pool = google.GpuNodePool("gpu", nodes)

ca = serving.master_auth.cluster_ca_certificate
address = pulumi.Output.concat("https://", serving.endpoint)
run = {"apiVersion": "client.authentication.k8s.io/v1", "command": "gke-gcloud-auth-plugin"}
kubeconfig = pulumi.Output.json_dumps(  # without credentials: the plugin has them
    {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "gke", "cluster": {"server": address, "certificate-authority-data": ca}}],
        "users": [{"name": "gke", "user": {"exec": {**run, "interactiveMode": "Never"}}}],
        "contexts": [{"name": "gke", "context": {"cluster": "gke", "user": "gke"}}],
        "current-context": "gke",
    }
)
cluster = kubernetes.Provider("cluster", kubeconfig=kubeconfig, enable_server_side_apply=True)
space = kubernetes.core.v1.Namespace("chat", opts=pulumi.ResourceOptions(provider=cluster))

lock = "modelcar/models/chat/model.lock"
image = modelcar.ModelcarImage(
    "chat", modelcar.ModelcarImageArgs(lock=lock, registry=repository.registry_uri)
)
served = modelcar.ModelServiceArgs(
    storage_uri=image.storage_uri,
    namespace=space.metadata.name,  # Pulumi makes the end of it up
    node_pool=pool.name,
    server=modelcar.VllmServer(image=pulumi.Config().require("serverImage")),
    access=modelcar.ClusterAccess(kubeconfig),
)
after = pulumi.ResourceOptions(provider=cluster, depends_on=[readable])
service = modelcar.ModelService("chat", served, after)
pulumi.export("endpoint", service.endpoint)
