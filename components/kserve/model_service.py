"""The served model: an InferenceService whose storage URI is pinned by digest."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource

from components.cluster.access import Cluster
from components.cluster.guard import ClusterAccess, guarded
from components.cluster.rollout import await_rolled_out
from components.cluster.workload import inference_service
from components.config.autoscaling import AutoscalingSettings
from components.config.checks.fit import doubts, unfit
from components.config.checks.models import runtime_differences
from components.config.knative import KnativeSettings
from components.config.known_model import KnownModel
from components.config.model_spec import ModelSpec
from components.config.probes import ProbesSettings
from components.config.scheduling import SchedulingSettings
from components.config.termination import TerminationSettings
from components.engine import left_out
from components.engine.inputs import Arguments, is_known
from components.engine.options import OWNED, child, imported, once_there
from components.engine.secrets import used
from components.engine.taken_over import telling
from components.engine.threads import in_thread
from components.kserve.server import CustomServer, Replicas, ServerResources, VllmServer
from components.kserve.shared_runtime import SharedRuntime
from components.kserve.spec import (
    argument_name,
    as_arguments,
    checked_account,
    checked_storage_uri,
    identity,
    in_own_words,
    model_spec,
    namespace_of,
)
from components.manifests import termination
from components.manifests.service import (
    PULLING,
    REVISION,
    endpoint,
    labels,
    predictor,
    revision,
    service_annotations,
    serving_runtime,
    serving_timeout,
)
from modelcar import oci_names
from modelcar.errors import InputError, Problem
from modelcar.lock_reader import read_lock

#: Lets the provider wait until KServe calls a service ready, where this program does not ask the cluster.
#: https://www.pulumi.com/registry/packages/kubernetes/how-to-guides/managing-resources-with-server-side-apply/
WAIT_FOR = {"pulumi.com/waitFor": "condition=Ready"}
#: How an image can come into a pod.
Placement = Literal["servingRuntime", "storageUriEnv", "storageUris", "imageVolume"]


@dataclass(frozen=True, kw_only=True)
class ModelServiceArgs(Arguments):
    """What is served, by what, and where.

    storage_uri: URI of the image, `oci://…@sha256:…`; an output of ModelcarImage. A service that is
        imported may have any other.
    namespace: Namespace of the InferenceService. It has to exist.
    server: The model server: VllmServer or CustomServer.
    resources: What one pod asks for.
    replicas: How many pods there are, and how they change.
    lock: Path of the model's lock. The server's arguments are checked against the model's configuration.
    name: Name of the InferenceService; by default the component's.
    deployment_mode: KServe's deployment mode.
    knative: How long Knative waits, in deployment mode Knative.
    placement: How the image comes into the pod: by KServe, from where its URI stands
        (docs/decisions/0001-storage-uri-placement.md), or as an image volume of Kubernetes
        (docs/decisions/0012-image-volumes.md).
    shared_runtime: ServingRuntime that this model uses together with others: the component, or the name of
        one that is there, which nothing is compared with.
    scheduling: Which nodes take the pods.
    probes: How Kubernetes asks the server for its health.
    termination: How a pod ends.
    autoscaling: What KEDA keeps the number of pods by. Autoscaler declares the ScaledObject.
    start_timeout_seconds: Seconds that pulling the image and starting the server may take.
    node_pool: Pool of GPU nodes that the pods run on (GKE).
    service_account: ServiceAccount of the pods; by default the namespace's own.
    access: How the program asks the cluster whether the model is served, and why it is not. Without it the
        provider waits as long until KServe calls the service ready, and gives no reasons.
    await_ready: False ends `up` before the model is served.
    imports: Kinds of objects that are there already (InferenceService, ServingRuntime), and are taken over as
        they are.
    """

    storage_uri: pulumi.Input[str]
    namespace: pulumi.Input[str]
    server: VllmServer | CustomServer
    resources: ServerResources = field(default_factory=ServerResources)
    replicas: Replicas = field(default_factory=Replicas)
    lock: str | Path | None = None
    name: str | None = None
    deployment_mode: Literal["Standard", "Knative"] = "Standard"
    knative: KnativeSettings | None = None
    placement: Placement = "servingRuntime"
    shared_runtime: SharedRuntime | str | None = None
    scheduling: SchedulingSettings = field(default_factory=SchedulingSettings)
    probes: ProbesSettings = field(default_factory=ProbesSettings)
    termination: TerminationSettings = field(default_factory=TerminationSettings)
    autoscaling: AutoscalingSettings | None = None
    start_timeout_seconds: int = 1800
    node_pool: pulumi.Input[str] | None = None
    service_account: pulumi.Input[str] | None = None
    access: ClusterAccess | None = None
    await_ready: bool = True
    imports: Collection[Literal["InferenceService", "ServingRuntime"]] = ()

    def spec(self, name: str) -> ModelSpec:
        """Return all of it that is plain, checked; name: of the component.

        Raises:
            modelcar.errors.InputError: with everything that is wrong.
        """
        spec = model_spec(
            self.server,
            self.resources,
            self.probes,
            self.termination,
            service_name=self.name or name,
            namespace=self.namespace if is_known(self.namespace) else None,
            deployment_mode=self.deployment_mode,
            knative=self.knative,
            placement=self.placement,
            shared_runtime=self.runtime_name,
            scheduling=self.scheduling,
            autoscaling=self.autoscaling,
            start_timeout_seconds=self.start_timeout_seconds,
            await_ready=self.await_ready,
            min_replicas=self.replicas.min,
            max_replicas=self.replicas.max,
            idle=self.replicas.idle,
            rollout=self.replicas.rollout,
            canary_traffic_percent=self.replicas.canary_traffic_percent,
            node_pool=self.node_pool if is_known(self.node_pool) else None,
        )
        found = list(_unshared(spec, self.shared_runtime)) if self.shared_runtime else []
        if spec.placement == "auto":  # only a stack finds out which one works
            allowed = ", ".join(get_args(Placement))
            found.append(Problem("placement", "auto", allowed, "choose one; servingRuntime works everywhere"))
        found += as_arguments(unfit(spec, self.model)) if self.model else ()
        if found:
            raise InputError(found)
        return spec

    @property
    def runtime_name(self) -> str | None:
        """Name of the ServingRuntime that the model shares; None where it has one of its own, or none."""
        shared = self.shared_runtime
        return shared.runtime_name if isinstance(shared, SharedRuntime) else shared

    @cached_property
    def model(self) -> KnownModel | None:
        """What is known of the model; None where no lock is named."""
        if self.lock is None:
            return None
        path = Path(self.lock)
        return KnownModel.of(read_lock(path), path.parent)


class ModelService(pulumi.ComponentResource):
    """Serve one modelcar with KServe.

    The runbook's own placement of the storage URI, a `model` beside a custom container, is refused by KServe
    0.19 and not offered.

    Outputs:
        name, namespace: of the InferenceService.
        storage_uri: what it serves; there once it does. Of a service that is imported, what it served then.
        endpoint: its address inside of the cluster.
        served_model_name: what clients ask the server for.

    Raises:
        modelcar.errors.InputError: plain arguments are wrong, each with what is allowed and the fix.
        pulumi.RunError: (inside of the outputs) the pods of this declaration are not ready in time, or cannot
            get ready. KServe alone would not tell: it calls a service ready as long as former pods serve.
    """

    name: pulumi.Output[str]
    namespace: pulumi.Output[str]
    storage_uri: pulumi.Output[str]
    endpoint: pulumi.Output[str]
    served_model_name: pulumi.Output[str]

    def __init__(self, name: str, args: ModelServiceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the InferenceService, and its ServingRuntime where the placement has one."""
        super().__init__("modelcar:kserve:ModelService", name, None, opts)
        args = replace(args, service_account=checked_account(args.service_account))
        spec = args.spec(name)
        for doubt in doubts(spec, args.model) if args.model else ():
            pulumi.log.warn(doubt, self)
        namespace = namespace_of(args.namespace, spec)
        # What is imported is served from where somebody else said.
        taken_over = "InferenceService" in args.imports
        uri = args.storage_uri if taken_over else checked_storage_uri(args.storage_uri)
        metadata = {"name": spec.service_name, "namespace": namespace, "labels": labels(spec)}
        known_as = identity(namespace, spec.service_name, args.imports)
        told = pulumi.ResourceOptions(hooks=telling(name))
        depends_on: list[pulumi.Resource] = (
            [args.shared_runtime] if isinstance(args.shared_runtime, SharedRuntime) else []
        )
        if spec.placement == "servingRuntime" and not spec.shared_runtime:
            runtime = CustomResource(
                f"{name}-runtime",
                api_version="serving.kserve.io/v1alpha1",
                kind="ServingRuntime",
                metadata={**metadata, "annotations": OWNED},
                spec=serving_runtime(spec),
                opts=imported(
                    # KServe makes new pods of it at once: not before the image is there, nor if it fails.
                    pulumi.ResourceOptions.merge(child(self, opts, once_there(uri)), told),
                    "ServingRuntime",
                    args.imports,
                    known_as,
                    hooks=guarded("ServingRuntime", f"{name}-runtime", args.access),
                ),
            )
            depends_on.append(runtime)
        declared = pulumi.Output.all(uri, args.service_account, args.node_pool).apply(
            lambda found: revision(spec.on_pool(found[2]), found[0], found[1])
        )
        annotations: dict[str, pulumi.Input[str]] = {
            **service_annotations(spec),
            # Awaited here, with reasons: docs/decisions/0007-our-own-wait.md
            **({"pulumi.com/skipAwait": "true"} if args.access or not spec.await_ready else WAIT_FOR),
            REVISION: declared,
        }
        service = CustomResource(
            name,
            api_version="serving.kserve.io/v1beta1",
            kind="InferenceService",
            metadata={**metadata, "annotations": {**OWNED, **annotations}},
            spec={"predictor": _predictor(spec, uri, args)},
            opts=imported(
                pulumi.ResourceOptions.merge(
                    pulumi.ResourceOptions.merge(child(self, opts, *depends_on), told),
                    pulumi.ResourceOptions(custom_timeouts=_timeouts(spec)),
                ),
                "InferenceService",
                args.imports,
                known_as,
                hooks=guarded("InferenceService", name, args.access),
            ),
        )
        # Known in a preview, and tied to the service: nobody gets the name before it is served.
        served = _served(name, service, declared, spec, namespace, args)
        self.name = served.apply(lambda _: spec.service_name)
        self.namespace = pulumi.Output.all(served, namespace).apply(lambda found: str(found[1]))
        if taken_over:
            self.storage_uri = _imported_uri(service, spec, namespace, args)
        else:
            self.storage_uri = pulumi.Output.all(served, uri).apply(lambda found: str(found[1]))
        self.endpoint = self.namespace.apply(lambda space: endpoint(spec.service_name, space))
        self.served_model_name = served.apply(lambda _: spec.model_name)
        self.register_outputs(
            {
                "name": self.name,
                "namespace": self.namespace,
                "storageUri": self.storage_uri,
                "endpoint": self.endpoint,
                "servedModelName": self.served_model_name,
            }
        )


def once_served(service: ModelService) -> pulumi.Input[pulumi.Resource]:
    """Return a service for `depends_on` of what comes after it has served; a preview does not wait."""
    return service if pulumi.runtime.is_dry_run() else service.storage_uri.apply(lambda _: service)


def _unshared(spec: ModelSpec, runtime: SharedRuntime | str) -> Iterator[Problem]:
    """Yield what keeps a model from using a ServingRuntime together with others."""
    if spec.placement != "servingRuntime":
        found = f"{spec.shared_runtime}, and placement {spec.placement} has no ServingRuntime"
        yield Problem("shared_runtime", found, "with placement servingRuntime", "remove one of the two")
    if isinstance(runtime, str):  # somebody else's
        return
    if differing := runtime_differences(spec, runtime.spec):
        names = ", ".join(map(argument_name, differing))
        found = f"{runtime.runtime_name}, and {names} differ from it"
        yield Problem("shared_runtime", found, "what the runtime has, or nothing", "make them equal")


def _predictor(spec: ModelSpec, uri: pulumi.Input[str], args: ModelServiceArgs) -> Any:
    """Return the predictor; what of it is not known yet shows as such in a preview, and nothing else does."""
    if is_known(args.node_pool):
        return predictor(spec, uri, args.service_account)
    return pulumi.Output.from_input(args.node_pool).apply(
        lambda pool: predictor(spec.on_pool(pool), uri, args.service_account)
    )


def _served(
    name: str,
    service: CustomResource,
    declared: pulumi.Output[str],
    spec: ModelSpec,
    namespace: pulumi.Input[str],
    args: ModelServiceArgs,
) -> pulumi.Output[str]:
    """Return an output that is there once the pods of this declaration serve, and no others.

    A service that this run leaves out is not waited for. name: of the component.
    """
    access = args.access
    # What is imported is as somebody else declared it; an idle model's pods go, or in Knative mode come once.
    known = spec.await_ready and "InferenceService" not in args.imports
    known = known and not (spec.idle and spec.deployment_mode == "Knative")
    if access is None or pulumi.runtime.is_dry_run() or not known:
        return service.urn

    async def wait(found: list[Any]) -> str:
        urn, there, wanted, kubeconfig, space, pool = found
        if _annotation(there, REVISION) != wanted:
            left_out.note(name)
            return str(urn)
        own = spec.on_pool(pool).reached_at(access.place(kubeconfig), str(space))
        with in_own_words():
            await in_thread(await_rolled_out, own, str(wanted), pulumi.log.info)
        return str(urn)

    reached = used(access.kubeconfig)
    # Not known where the engine could not make it; its URN is, with `--continue-on-error`.
    there = pulumi.Output.unsecret(pulumi.get(service, "metadata"))
    return pulumi.Output.all(service.urn, there, declared, reached, namespace, args.node_pool).apply(wait)


def _annotation(metadata: Any, name: str) -> str | None:
    found: str | None = ((metadata or {}).get("annotations") or {}).get(name)
    return found


def _imported_uri(
    service: CustomResource, spec: ModelSpec, namespace: pulumi.Input[str], args: ModelServiceArgs
) -> pulumi.Output[str]:
    """Return what a service that is imported serves, which this program did not say."""
    access = args.access
    if access is None or pulumi.runtime.is_dry_run():
        return pulumi.Output.from_input(args.storage_uri)

    async def look(found: list[Any]) -> str:
        _, planned, kubeconfig, space = found
        own = spec.reached_at(access.place(kubeconfig), str(space))
        document = await in_thread(lambda: inference_service(Cluster.of(own), own))
        return oci_names.find_storage_uri((document or {}).get("spec")) or str(planned)

    reached = used(access.kubeconfig)
    return pulumi.Output.all(service.urn, args.storage_uri, reached, namespace).apply(look)


def _timeouts(spec: ModelSpec) -> pulumi.CustomTimeouts:
    """Return how long the provider waits.

    For a service that it awaits, as long as the program would itself: its own ten minutes are too short for a
    big model. For a deletion, until the pods are gone, and they may finish what they have begun.
    """
    starts, ends = serving_timeout(spec), termination.patience(spec)
    return pulumi.CustomTimeouts(
        create=f"{starts}s", update=f"{starts + ends}s", delete=f"{max(600, ends + 2 * PULLING)}s"
    )
