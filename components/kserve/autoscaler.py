"""The number of a model's pods, by KEDA: why by our own object, see `components.config.autoscaling`."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource

from components.config.autoscaling import AutoscalingSettings
from components.config.settings import Settings
from components.engine.options import OWNED, child
from components.manifests.autoscaling import API_VERSION, KIND, scaled_object


@dataclass(frozen=True)
class AutoscalerArgs:
    """settings: of the model. scaling: its own. hooks: of the object, `components.cluster.guard.guarded`."""

    settings: Settings
    scaling: AutoscalingSettings
    hooks: pulumi.ResourceHookBinding | None = None


class Autoscaler(pulumi.ComponentResource):
    """A ScaledObject (keda.sh/v1alpha1) for the Deployment that KServe makes of an InferenceService.

    Outputs:
        name: of the ScaledObject.
    """

    name: pulumi.Output[str]

    def __init__(self, name: str, args: AutoscalerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare it."""
        super().__init__("modelcar:kserve:Autoscaler", name, None, opts)
        settings = args.settings
        scaled = CustomResource(
            name,
            api_version=API_VERSION,
            kind=KIND,
            metadata={
                "name": settings.service_name,
                "namespace": settings.namespace,
                "annotations": OWNED,
            },
            spec=scaled_object(settings, args.scaling),
            opts=pulumi.ResourceOptions.merge(child(self, opts), pulumi.ResourceOptions(hooks=args.hooks)),
        )
        self.name = scaled.urn.apply(lambda _: settings.service_name)
        self.register_outputs({"name": self.name})
