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
member = pulumi.Output.concat("serviceAccount:", account.email)
right = {"repository": repository.repository_id, "role": "roles/artifactregistry.reader", "member": member}
readable = gcp.artifactregistry.RepositoryIamMember("models", **right, **place)

# Nodes with GPUs take the identities of pods from GKE's metadata server, which comes with this.
identities = {"workload_pool": f"{project}.svc.id.goog"}
own = {"initial_node_count": 1, "remove_default_node_pool": True, "workload_identity_config": identities}
serving = gcp.container.Cluster("serving", **own, **place)
# For KServe and the cluster's own pods: nodes with GPUs take models only, and there may be none.
scopes = ["https://www.googleapis.com/auth/cloud-platform"]
node = {"machine_type": "e2-standard-4", "service_account": account.email, "oauth_scopes": scopes}
granted = pulumi.ResourceOptions(depends_on=[account])  # nodes start after the account has its roles
one = {"cluster": serving.name, "node_count": 1, "node_config": node}
system = gcp.container.NodePool("system", **one, **place, opts=granted)
gpu = google.NodeSettings(gpu="nvidia-l4", machine_type="g2-standard-8")
nodes = {"cluster": serving.name, "nodes": gpu, "service_account": account.email}
pool = google.GpuNodePool("gpu", google.GpuNodePoolArgs(**nodes, **place), granted)

ca = serving.master_auth.cluster_ca_certificate
server = {"server": pulumi.Output.concat("https://", serving.endpoint), "certificate-authority-data": ca}
plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "gke-gcloud-auth-plugin"}
run = {**plugin, "interactiveMode": "Never", "provideClusterInfo": True}  # has the credentials
named = {
    "clusters": [{"name": "gke", "cluster": server}],
    "users": [{"name": "gke", "user": {"exec": run}}],
    "contexts": [{"name": "gke", "context": {"cluster": "gke", "user": "gke"}}],
}
whole = {"apiVersion": "v1", "kind": "Config", "current-context": "gke", **named}
kubeconfig = pulumi.Output.json_dumps(whole)
access = modelcar.ClusterAccess(kubeconfig)
identifier = serving.control_plane_endpoints_config.dns_endpoint_config.endpoint  # whatever its certificates
reached = {"kubeconfig": kubeconfig, "cluster_identifier": identifier}
cluster = kubernetes.Provider("cluster", enable_server_side_apply=True, **reached)
on_system = pulumi.ResourceOptions(provider=cluster, depends_on=[system])
kserve = modelcar.KServePlatform("kserve", modelcar.KServePlatformArgs(access=access), on_system)
space = kubernetes.core.v1.Namespace("chat", opts=pulumi.ResourceOptions(provider=cluster))

made = modelcar.ModelcarImageArgs(lock="modelcar/models/chat/model.lock", registry=repository.registry_uri)
image = modelcar.ModelcarImage("chat", made)
vllm = modelcar.VllmServer(image=pulumi.Config().require("serverImage"))
chat = {"namespace": space.metadata.name, "storage_uri": image.storage_uri, "node_pool": pool.name}
served = modelcar.ModelServiceArgs(server=vllm, access=access, **chat)  # Pulumi makes the namespace's name up
after = pulumi.ResourceOptions(provider=cluster, depends_on=[kserve.ready, readable])
service = modelcar.ModelService("chat", served, after)
pulumi.export("endpoint", service.endpoint)
