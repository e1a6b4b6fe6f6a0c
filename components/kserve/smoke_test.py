"""What the smoke test found out, in the stack: the next run reads it, and a reviewer sees when it changes."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as kubernetes

from components.engine.options import child
from components.engine.this_stack import marked


@dataclass(frozen=True, kw_only=True)
class SmokeTestArgs:
    """config_map, namespace: where it is kept. placement: found, with the KServe of a fingerprint."""

    config_map: str
    namespace: pulumi.Input[str]
    placement: str
    fingerprint: str


class SmokeTest(pulumi.ComponentResource):
    """A ConfigMap with the placement that this cluster's KServe honours; models are declared after it.

    Outputs:
        placement: of the storage URI.
    """

    placement: pulumi.Output[str]

    def __init__(self, name: str, args: SmokeTestArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the ConfigMap."""
        super().__init__("modelcar:kserve:SmokeTest", name, None, opts)
        kept = kubernetes.core.v1.ConfigMap(
            name,
            metadata={"name": args.config_map, "namespace": args.namespace, "annotations": marked()},
            data={"placement": args.placement, "fingerprint": args.fingerprint},
            opts=child(self, opts),
        )
        self.placement = kept.data.apply(lambda data: str(data["placement"]))
        self.register_outputs({"placement": self.placement})
