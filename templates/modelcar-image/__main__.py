"""A locked model as an image in a registry. Whoever serves it names it by its digest."""

import pulumi
from modelcar_kserve import ModelcarImage, ModelcarImageArgs

config = pulumi.Config()
model = config.require("model")
image = ModelcarImage(
    model,
    ModelcarImageArgs(lock=f"modelcar/models/{model}/model.lock", registry=config.require("registry")),
)

pulumi.export("storageUri", image.storage_uri)
pulumi.export("digest", image.digest)
pulumi.export("sizeBytes", image.size_bytes)
