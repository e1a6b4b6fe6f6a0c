"""A locked model as an image in a registry. No cluster is needed: somebody else serves it, by its digest."""

import pulumi
from modelcar_kserve import ModelcarImage, ModelcarImageArgs

config = pulumi.Config()
image = ModelcarImage(
    "assistant",
    ModelcarImageArgs(lock="modelcar/models/assistant/model.lock", registry=config.require("registry")),
)

pulumi.export("storageUri", image.storage_uri)
pulumi.export("digest", image.digest)
pulumi.export("sizeBytes", image.size_bytes)
