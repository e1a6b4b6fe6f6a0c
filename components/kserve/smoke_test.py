"""What the smoke test found out, in the stack: the next run reads it, and a reviewer sees when it changes."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as kubernetes

from components.cluster.guard import ClusterAccess, guarded
from components.engine.options import child
from components.engine.this_stack import marked


@dataclass(frozen=True, kw_only=True)
class SmokeTestArgs:
    """What was found out, and where it is kept.

    config_map, namespace: where. keeps_name: it may have another name already, and keeps that.
    placement: found, with the KServe of a fingerprint.
    access: how the cluster is asked whether somebody else has such a ConfigMap; not asked without it.
    """

    config_map: str
    namespace: pulumi.Input[str]
    placement: str
    fingerprint: str
    keeps_name: bool = False
    access: ClusterAccess | None = None


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
            opts=pulumi.ResourceOptions.merge(
                child(self, opts),
                pulumi.ResourceOptions(
                    ignore_changes=["metadata.name"] if args.keeps_name else [],
                    hooks=guarded("ConfigMap", name, args.access),
                ),
            ),
        )
        self.placement = kept.data.apply(lambda data: str(data["placement"]))
        self.register_outputs({"placement": self.placement})
