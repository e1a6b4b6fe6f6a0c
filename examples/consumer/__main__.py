"""A front end that talks to every model of another stack, wherever that is deployed.

It knows the stack's name and the interface (docs/outputs.md); no address, digest or model is written here.
"""

import json

import pulumi
from modelcar_kserve import read_stack

config = pulumi.Config()
stack = read_stack(config.require("modelStack"))

# What a gateway, a client library or a dashboard would be configured with.
routes = stack.apply(
    lambda found: {
        model.served_model_name: {"url": f"{model.endpoint}/v1", "digest": model.model_digest}
        for model in found.models.values()
    }
)
pulumi.export("routes", routes)
pulumi.export("gatewayConfig", routes.apply(lambda found: json.dumps(found, indent=1, sort_keys=True)))
# A stack has no models before its first one is served.
largest = stack.apply(lambda found: max((model.model_bytes for model in found.models.values()), default=0))
pulumi.export("largestModelBytes", largest)
