"""The number of a model's pods, by KEDA: why by our own object, see `components.config.autoscaling`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource

from components.cluster.guard import ClusterAccess, guarded
from components.config.autoscaling import AutoscalingSettings
from components.config.model_spec import ModelSpec
from components.engine.options import OWNED, child
from components.kserve.spec import checked_namespace
from components.manifests.autoscaling import API_VERSION, KIND, scaled_object


@dataclass(frozen=True, kw_only=True)
class AutoscalerArgs:
    """Which pods, and by what their number is kept.

    service: Name of the InferenceService.
    namespace: Namespace of the InferenceService.
    scaling: What asks for pods.
    min_replicas: The fewest pods; 0 lets the last one go.
    max_replicas: The most pods.
    start_timeout_seconds: Seconds before which the first pod is not taken away.
    access: How the cluster is asked whether somebody else has such an object; not asked without it.
    """

    service: str
    namespace: pulumi.Input[str]
    scaling: AutoscalingSettings
    min_replicas: int = 1
    max_replicas: int = 1
    start_timeout_seconds: int = 1800
    access: ClusterAccess | None = None


class Autoscaler(pulumi.ComponentResource):
    """A ScaledObject (keda.sh/v1alpha1) for the Deployment that KServe makes of an InferenceService.

    Outputs:
        name: of the ScaledObject.
    """

    name: pulumi.Output[str]

    def __init__(self, name: str, args: AutoscalerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare it."""
        super().__init__("modelcar:kserve:Autoscaler", name, None, opts)
        namespace = checked_namespace(args.namespace)
        # Prometheus is asked for the pods of the namespace.
        spec: Any = (
            _spec(args, namespace)
            if isinstance(namespace, str)
            else pulumi.Output.all(namespace).apply(lambda found: _spec(args, str(found[0])))
        )
        scaled = CustomResource(
            name,
            api_version=API_VERSION,
            kind=KIND,
            metadata={"name": args.service, "namespace": namespace, "annotations": OWNED},
            spec=spec,
            opts=pulumi.ResourceOptions.merge(
                child(self, opts), pulumi.ResourceOptions(hooks=guarded(KIND, name, args.access))
            ),
        )
        self.name = scaled.urn.apply(lambda _: args.service)
        self.register_outputs({"name": self.name})


def _spec(args: AutoscalerArgs, namespace: str) -> dict[str, Any]:
    model = ModelSpec.model_construct(
        service_name=args.service,
        namespace=namespace,
        min_replicas=args.min_replicas,
        max_replicas=args.max_replicas,
        start_timeout_seconds=args.start_timeout_seconds,
    )
    return scaled_object(model, args.scaling)
