"""A ServingRuntime that several models use."""

from __future__ import annotations

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource

from components.cluster.guard import guarded
from components.config.settings import Settings
from components.engine.options import OWNED, child
from components.manifests.service import labels, serving_runtime


class SharedRuntime(pulumi.ComponentResource):
    """A ServingRuntime that several models serve with: one image and one set of probes for all of them.

    Outputs:
        name: of the ServingRuntime.
    """

    name: pulumi.Output[str]

    def __init__(
        self,
        settings: Settings,
        opts: pulumi.ResourceOptions | None = None,
        kubeconfig: pulumi.Input[str] | None = None,
    ) -> None:
        """Declare it.

        Args:
            settings: of any of the models that share it.
            kubeconfig: of the cluster, where the settings have none.
        """
        name = str(settings.shared_runtime)
        super().__init__("modelcar:kserve:SharedRuntime", name, None, opts)
        runtime = CustomResource(
            name,
            api_version="serving.kserve.io/v1alpha1",
            kind="ServingRuntime",
            metadata={
                "name": name,
                "namespace": settings.namespace,
                "labels": {**labels(settings), "app.kubernetes.io/name": name},
                "annotations": OWNED,
            },
            spec=serving_runtime(settings),
            opts=pulumi.ResourceOptions.merge(
                child(self, opts),
                pulumi.ResourceOptions(hooks=guarded("SharedRuntime", name, settings, kubeconfig)),
            ),
        )
        self.name = runtime.urn.apply(lambda _: name)
        self.register_outputs({"name": self.name})
