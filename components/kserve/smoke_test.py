"""What the smoke test found out, in the stack: the next run reads it, and a reviewer sees when it changes."""

from __future__ import annotations

import pulumi
import pulumi_kubernetes as kubernetes

from components.engine.options import OWNED, child


class SmokeTest(pulumi.ComponentResource):
    """A ConfigMap with the placement that this cluster's KServe honours; models are declared after it.

    Outputs:
        placement: of the storage URI.
    """

    placement: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        config_map: str,
        namespace: str,
        found: dict[str, str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Declare the ConfigMap; found: placement, and fingerprint of the KServe that it was tested with."""
        super().__init__("modelcar:kserve:SmokeTest", name, None, opts)
        kept = kubernetes.core.v1.ConfigMap(
            name,
            metadata={"name": config_map, "namespace": namespace, "annotations": OWNED},
            data=found,
            opts=child(self, opts),
        )
        self.placement = kept.data.apply(lambda data: str(data["placement"]))
        self.register_outputs({"placement": self.placement})
