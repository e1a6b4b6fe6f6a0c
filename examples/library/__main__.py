"""A program with resources of its own, one of which is a served model.

`python -m modelcar_kserve lock assistant --hub OWNER/NAME` locks the model here; the lock is committed.
"""

import json

import pulumi
import pulumi_kubernetes as kubernetes
from modelcar_kserve import InputError, Place, load_model, serve

config = pulumi.Config()
namespace = "assistant"

cluster = kubernetes.Provider("cluster", kubeconfig=config.get("kubeconfig"), enable_server_side_apply=True)
in_cluster = pulumi.ResourceOptions(provider=cluster)
space = kubernetes.core.v1.Namespace(namespace, metadata={"name": namespace}, opts=in_cluster)

try:
    settings = load_model(
        {
            "model": "assistant",
            "serviceName": "assistant",
            "namespace": namespace,
            "registry": config.require("registry"),
            "serverImage": config.require("serverImage"),
            # Any other setting of a model, by the name that it has in docs/reference/settings.md.
            **json.loads(config.get("settings") or "{}"),
        }
    )
    ready = pulumi.ResourceOptions.merge(in_cluster, pulumi.ResourceOptions(depends_on=[space]))
    model = serve("assistant", settings, Place(ready))
except InputError as error:
    raise pulumi.RunError(str(error)) from None

# What is the program's own uses what the model says of itself.
kubernetes.core.v1.ConfigMap(
    "client",
    metadata={"name": "client", "namespace": namespace},
    data={"endpoint": model.outputs["endpoint"], "model": model.outputs["servedModelName"]},
    opts=pulumi.ResourceOptions.merge(in_cluster, pulumi.ResourceOptions(depends_on=[model])),
)
pulumi.export("digest", model.outputs["modelDigest"])
