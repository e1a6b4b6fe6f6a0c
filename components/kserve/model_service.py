"""The served model: an InferenceService whose storage URI is pinned by digest."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource

from components.cluster.access import Cluster
from components.cluster.guard import guarded
from components.cluster.rollout import await_rolled_out
from components.cluster.workload import inference_service
from components.config.settings import Settings
from components.engine.options import OWNED, child, imported
from components.engine.taken_over import telling
from components.engine.threads import in_thread
from components.manifests import termination
from components.manifests.service import (
    PULLING,
    REVISION,
    labels,
    predictor,
    revision,
    service_annotations,
    serving_runtime,
)
from modelcar import oci_names


@dataclass(frozen=True)
class ModelServiceArgs:
    """storage_uri: `oci://…@sha256:…`; settings: the stack's, for everything else.

    service_account: of the pods; the namespace's default one where None.
    kubeconfig: of the cluster, where the settings have none; it is asked whether the model is served.
    shared_runtime: the ServingRuntime that the settings name; made by `SharedRuntime`.
    """

    storage_uri: pulumi.Input[str]
    settings: Settings
    service_account: pulumi.Input[str] | None = None
    kubeconfig: pulumi.Input[str] | None = None
    shared_runtime: pulumi.Resource | None = None


class ModelService(pulumi.ComponentResource):
    """Serve one modelcar with KServe.

    The storage URI is placed as the setting `placement` says
    (docs/decisions/0001-storage-uri-placement.md); the runbook's own placement, a `model` beside a custom
    container, is refused by KServe 0.19 and not offered.

    Outputs:
        name, namespace: of the InferenceService.
        storage_uri: what it serves; there once it does. Of a service that is imported, what it served then.

    Raises (inside of the outputs):
        pulumi.RunError: the pods of this declaration are not ready in time, or cannot get ready. KServe alone
            would not tell: it calls a service ready as long as former pods serve.
    """

    name: pulumi.Output[str]
    namespace: pulumi.Output[str]
    storage_uri: pulumi.Output[str]

    def __init__(self, name: str, args: ModelServiceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the InferenceService, and its ServingRuntime where the placement has one."""
        super().__init__("modelcar:kserve:ModelService", name, None, opts)
        settings = args.settings
        metadata = {
            "name": settings.service_name,
            "namespace": settings.namespace,
            "labels": labels(settings),
        }
        identity = f"{settings.namespace}/{settings.service_name}"
        told = pulumi.ResourceOptions(hooks=telling(name))
        depends_on = [args.shared_runtime] if args.shared_runtime else []
        if settings.placement == "servingRuntime" and not settings.shared_runtime:
            runtime = CustomResource(
                f"{name}-runtime",
                api_version="serving.kserve.io/v1alpha1",
                kind="ServingRuntime",
                metadata={**metadata, "annotations": OWNED},
                spec=serving_runtime(settings),
                opts=imported(
                    pulumi.ResourceOptions.merge(child(self, opts), told),
                    "ServingRuntime",
                    settings.import_objects,
                    identity,
                    hooks=guarded("ServingRuntime", f"{name}-runtime", settings, args.kubeconfig),
                ),
            )
            depends_on.append(runtime)
        declared = pulumi.Output.all(args.storage_uri, args.service_account).apply(
            lambda found: revision(settings, *found)
        )
        annotations: dict[str, pulumi.Input[str]] = {
            **service_annotations(settings),
            # Awaited here, with reasons: docs/decisions/0007-our-own-wait.md
            "pulumi.com/skipAwait": "true",
            REVISION: declared,
        }
        service = CustomResource(
            name,
            api_version="serving.kserve.io/v1beta1",
            kind="InferenceService",
            metadata={**metadata, "annotations": {**OWNED, **annotations}},
            spec={"predictor": predictor(settings, args.storage_uri, args.service_account)},
            opts=imported(
                pulumi.ResourceOptions.merge(
                    pulumi.ResourceOptions.merge(child(self, opts, *depends_on), told),
                    pulumi.ResourceOptions(custom_timeouts=_timeouts(settings)),
                ),
                "InferenceService",
                settings.import_objects,
                identity,
                hooks=guarded("InferenceService", name, settings, args.kubeconfig),
            ),
        )
        # Known in a preview, and tied to the service: nobody gets the name before it is served.
        served = _served(service, declared, args)
        self.name = served.apply(lambda _: settings.service_name)
        self.namespace = served.apply(lambda _: settings.namespace)
        if "InferenceService" in settings.import_objects:
            self.storage_uri = _imported_uri(service, args)
        else:
            self.storage_uri = pulumi.Output.all(served, args.storage_uri).apply(lambda found: str(found[1]))
        self.register_outputs(
            {"name": self.name, "namespace": self.namespace, "storageUri": self.storage_uri}
        )


def _served(
    service: CustomResource, declared: pulumi.Output[str], args: ModelServiceArgs
) -> pulumi.Output[str]:
    """Return an output that is there once the pods of this declaration serve, and no others."""
    settings = args.settings
    # What is imported is as somebody else declared it; an idle model's pods go, or in Knative mode come once.
    known = settings.await_ready and "InferenceService" not in settings.import_objects
    known = known and not (settings.idle and settings.deployment_mode == "Knative")
    if pulumi.runtime.is_dry_run() or not known:
        return service.urn

    async def wait(found: list[str]) -> str:

        urn, wanted, kubeconfig = found
        await in_thread(await_rolled_out, settings.reached_by(kubeconfig), wanted, pulumi.log.info)
        return urn

    return pulumi.Output.all(service.urn, declared, args.kubeconfig).apply(wait)


def _imported_uri(service: CustomResource, args: ModelServiceArgs) -> pulumi.Output[str]:
    """Return what a service that is imported serves, which this program did not say."""
    settings = args.settings

    async def look(found: list[str]) -> str:

        _, planned, kubeconfig = found
        own = settings.reached_by(kubeconfig)
        document = await in_thread(lambda: inference_service(Cluster.of(own), own))
        return oci_names.find_storage_uri((document or {}).get("spec")) or planned

    if pulumi.runtime.is_dry_run():
        return pulumi.Output.from_input(args.storage_uri)
    return pulumi.Output.all(service.urn, args.storage_uri, args.kubeconfig).apply(look)


def _timeouts(settings: Settings) -> pulumi.CustomTimeouts:
    """Return the time for a deletion: the provider waits until the pods are gone, and they may finish."""
    return pulumi.CustomTimeouts(delete=f"{max(600, termination.patience(settings) + 2 * PULLING)}s")
