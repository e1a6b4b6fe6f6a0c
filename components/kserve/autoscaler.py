"""The number of a model's pods, by KEDA: why by our own object, see `components.config.autoscaling`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource

from components.cluster.guard import ClusterAccess, guarded
from components.config.arguments import as_arguments
from components.config.autoscaling import AutoscalingSettings
from components.config.checks import autoscaling, service
from components.config.model_spec import ModelSpec
from components.engine.inputs import Arguments, is_known
from components.engine.options import OWNED, child
from components.kserve.spec import namespace_of, validated
from components.manifests.autoscaling import API_VERSION, KIND, scaled_object
from modelcar.errors import InputError

#: Arguments, by the settings of a stack that say the same, where a stack has another name.
_ARGUMENTS = {"serviceName": "service", "autoscaling": "scaling"}
#: Stands for the server's image, which a ScaledObject says nothing of.
_IMAGE = f"server@sha256:{'0' * 64}"


@dataclass(frozen=True, kw_only=True)
class AutoscalerArgs(Arguments):
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

    def spec(self) -> ModelSpec:
        """Return all of it that is plain, checked.

        Raises:
            modelcar.errors.InputError: with everything that is wrong.
        """
        values = {
            "service_name": self.service,
            "autoscaling": self.scaling,
            "min_replicas": self.min_replicas,
            "max_replicas": self.max_replicas,
            "start_timeout_seconds": self.start_timeout_seconds,
            **({"namespace": self.namespace} if is_known(self.namespace) else {}),
            "server_image": _IMAGE,
        }
        spec = validated(values, _ARGUMENTS)
        problems = [one for check in service.CHECKS if (one := check(spec)) is not None]
        problems += autoscaling.problems(spec)
        if found := list(as_arguments(problems, _ARGUMENTS)):
            raise InputError(found)
        return spec


class Autoscaler(pulumi.ComponentResource):
    """A ScaledObject (keda.sh/v1alpha1) for the Deployment that KServe makes of an InferenceService.

    Outputs:
        name: of the ScaledObject.

    Raises:
        modelcar.errors.InputError: plain arguments are wrong, each with what is allowed and the fix.
    """

    name: pulumi.Output[str]

    def __init__(self, name: str, args: AutoscalerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare it."""
        super().__init__("modelcar:kserve:Autoscaler", name, None, opts)
        model = args.spec()
        namespace = namespace_of(args.namespace, model, _ARGUMENTS)
        # Prometheus is asked for the pods of the namespace.
        spec: Any = (
            scaled_object(model, args.scaling)
            if isinstance(namespace, str)
            else pulumi.Output.all(namespace).apply(
                lambda found: scaled_object(
                    model.model_copy(update={"namespace": str(found[0])}), args.scaling
                )
            )
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
        # With `--continue-on-error` an object that was refused has a URN all the same.
        there: pulumi.Output[Any] = (
            scaled.urn if pulumi.runtime.is_dry_run() else pulumi.get(scaled, "metadata")
        )
        self.name = there.apply(lambda _: args.service)
        self.register_outputs({"name": self.name})
