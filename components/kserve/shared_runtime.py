"""A ServingRuntime that several models use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource

from components.cluster.guard import ClusterAccess, guarded
from components.config.model_spec import ModelSpec
from components.config.probes import ProbesSettings
from components.config.termination import TerminationSettings
from components.engine.inputs import Arguments
from components.engine.options import OWNED, child
from components.kserve.server import CustomServer, ServerResources, VllmServer
from components.kserve.spec import checked_namespace, model_spec
from components.manifests.service import labels, serving_runtime

#: What a ServingRuntime has of its server, whatever the model.
_COMMON = ("image", "command", "port", "health_path", "writable_paths", "host_paths", "read_ahead")


@dataclass(frozen=True, kw_only=True)
class SharedRuntimeArgs(Arguments):
    """What the models that use it have in common.

    namespace: Namespace of the ServingRuntime. It has to exist.
    server: The model server. What is a model's own is not looked at here: arguments, variables, kernels.
    deployment_mode: KServe's deployment mode of the models. Knative takes no preStop hook.
    shared_memory: Memory for /dev/shm.
    probes: How Kubernetes asks the server for its health.
    termination: How a pod ends.
    start_timeout_seconds: Seconds that a server may take to start.
    name: Name of the ServingRuntime; by default the component's.
    access: How the cluster is asked whether somebody else has such an object; not asked without it.
    """

    namespace: pulumi.Input[str]
    server: VllmServer | CustomServer
    deployment_mode: Literal["Standard", "Knative"] = "Standard"
    shared_memory: str = ServerResources.model_fields["shared_memory"].default
    probes: ProbesSettings = field(default_factory=ProbesSettings)
    termination: TerminationSettings = field(default_factory=TerminationSettings)
    start_timeout_seconds: int = 1800
    name: str | None = None
    access: ClusterAccess | None = None

    def spec(self, name: str) -> ModelSpec:
        """Return all of it that is plain, checked; name: of the component.

        Raises:
            modelcar.errors.InputError: with everything that is wrong.
        """
        own = self.name or name
        # What a pod asks for is each model's own, so that there is no less memory here.
        resources = ServerResources(shared_memory=self.shared_memory, memory=self.shared_memory)
        return model_spec(
            _common(self.server),
            resources,
            self.probes,
            self.termination,
            service_name=own,
            shared_runtime=own,
            deployment_mode=self.deployment_mode,
            start_timeout_seconds=self.start_timeout_seconds,
        )


def _common(server: VllmServer | CustomServer) -> VllmServer | CustomServer:
    """Return what a ServingRuntime has of a server; the rest is one model's, as right as its resources."""
    return type(server)(**{name: getattr(server, name) for name in _COMMON})


class SharedRuntime(pulumi.ComponentResource):
    """A ServingRuntime that several models serve with: one image and one set of probes for all of them.

    A change of it makes new pods for all of them at once: let it depend on their images.

    Outputs:
        name: of the ServingRuntime.
        runtime_name: the same, before it is there.
        spec: what models that use it have to have in common with it.
    """

    name: pulumi.Output[str]
    runtime_name: str
    spec: ModelSpec

    def __init__(
        self, name: str, args: SharedRuntimeArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Declare it."""
        super().__init__("modelcar:kserve:SharedRuntime", name, None, opts)
        self.spec = spec = args.spec(name)
        self.runtime_name = spec.service_name
        runtime = CustomResource(
            name,
            api_version="serving.kserve.io/v1alpha1",
            kind="ServingRuntime",
            metadata={
                "name": spec.service_name,
                "namespace": checked_namespace(args.namespace),
                "labels": labels(spec),
                "annotations": OWNED,
            },
            spec=serving_runtime(spec),
            opts=pulumi.ResourceOptions.merge(
                child(self, opts),
                pulumi.ResourceOptions(hooks=guarded("SharedRuntime", name, args.access)),
            ),
        )
        self.name = runtime.urn.apply(lambda _: spec.service_name)
        self.register_outputs({"name": self.name})
