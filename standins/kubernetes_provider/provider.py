"""The ResourceProvider service of the stand-in: what the engine calls for each Kubernetes object.

The order of events is the official provider's (pulumi-kubernetes 4.34.2, server-side apply mode): Check
names the object, Diff compares with the last seen state, Create and Update apply and wait; in a preview
they apply as a dry run, so that admission webhooks refuse in the preview what they would refuse in `up`.
Where the two differ on purpose, the method says so.
"""

# ruff: noqa: ARG002 (the service definition fixes the parameters of every method)

from __future__ import annotations

import functools
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf import any_pb2, empty_pb2
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc, status_pb2

from standins.kubernetes_provider import conditions, diagnosis, differences, naming, properties
from standins.kubernetes_provider.cluster import (
    Cluster,
    ClusterError,
    ResourceType,
    UnknownKindError,
    UnreachableError,
)
from standins.kubernetes_provider.conditions import WaitForError
from standins.kubernetes_provider.connection import (
    KubeconfigError,
    Settings,
    connect,
    find_kubeconfig,
    settings_from,
    unsupported,
)
from standins.kubernetes_provider.naming import NamingError
from standins.kubernetes_provider.properties import UNKNOWN
from standins.kubernetes_provider.readiness import (
    NOT_AWAITED,
    Baseline,
    is_inference_service,
    readiness,
)
from standins.kubernetes_provider.refusals import PartialError, RefusedError
from standins.kubernetes_provider.releases import Releases, is_release
from standins.kubernetes_provider.stopping import Stop
from standins.kubernetes_provider.watching import Outcome, Verdict, Watcher
from standins.plugin import INFO, WARNING, EngineLog, engine_address, serve
from standins.provider import StandInProvider

VERSION = "4.34.2"
NOTICE = (
    "Using a stand-in for pulumi-resource-kubernetes, because the official plugin is not there. "
    f"fix: pulumi plugin install resource kubernetes {VERSION}; it is then used by itself."
)
# Times that a create is tried while its kind or namespace is still on the way, and the first pause in
# seconds (it doubles): what the official provider does, because no watch can say that discovery is ready.
CREATE_ATTEMPTS = 5
FIRST_PAUSE = 1.0
# Fields that the server fills in; they are no inputs of an imported object.
_SERVER_METADATA = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
)
_SERVER_ANNOTATIONS = (
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/revision",
)
# Managers that a person at a keyboard has: what they changed is taken back without a conflict, as the
# official provider does by taking their fields over.
_PERSONS = ("kubectl", "before-first-apply")
# Without a server to ask: the built-in kinds that are in no namespace.
_CLUSTER_SCOPED = frozenset(
    {
        "APIService",
        "ClusterRole",
        "ClusterRoleBinding",
        "ClusterServingRuntime",
        "CustomResourceDefinition",
        "IngressClass",
        "MutatingWebhookConfiguration",
        "Namespace",
        "Node",
        "PersistentVolume",
        "PriorityClass",
        "RuntimeClass",
        "StorageClass",
        "ValidatingWebhookConfiguration",
    }
)

Method = TypeVar("Method", bound=Callable[..., Any])


def _answering(method: Method) -> Method:
    """Turn the exceptions of a method into gRPC errors whose text is what the user reads."""

    @functools.wraps(method)
    def wrapper(self: Provider, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(self, request, context)
        except PartialError as error:
            _abort_partially(context, error)
        except (RefusedError, WaitForError, NamingError, properties.UnsupportedValueError) as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except KubeconfigError as error:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except (UnreachableError, UnknownKindError) as error:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except ClusterError as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        except Exception as error:
            # The engine hides a plugin's output, so the whole story has to be in the message.
            story = "".join(traceback.format_exception(error))
            context.abort(grpc.StatusCode.INTERNAL, f"a fault of the stand-in itself:\n{story}")

    return wrapper  # type: ignore[return-value]


def _abort_partially(context: grpc.ServicerContext, error: PartialError) -> NoReturn:
    """Answer with the detail that makes the engine record the resource although the operation failed."""
    failed = provider_pb2.ErrorResourceInitFailed(
        id=error.id, properties=properties.encode(error.state), inputs=error.inputs, reasons=error.reasons
    )
    detail = any_pb2.Any()
    detail.Pack(failed)
    code = grpc.StatusCode.UNKNOWN
    status = status_pb2.Status(code=code.value[0], message=error.message, details=[detail])
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, error.message)
    raise AssertionError("abort always raises")


class Provider(StandInProvider):
    """The service. One instance serves one provider resource of one engine."""

    NAME = "kubernetes"
    VERSION = VERSION

    def __init__(self, log: EngineLog) -> None:
        """Log: to the engine that started this process."""
        super().__init__(log)
        self._stop = Stop()
        self._settings = settings_from({})
        self._cluster: Cluster | None = None
        self._namespace = "default"
        # Why the cluster cannot be asked; "" where it can.
        self._unreachable = "the provider was not configured"

    # --- the plugin and its configuration

    @_answering
    def CheckConfig(
        self, request: provider_pb2.CheckRequest, context: grpc.ServicerContext
    ) -> provider_pb2.CheckResponse:
        """Refuse settings that the stand-in does not have, and a kubeconfig or context that is not there."""
        given = properties.decode(request.news)
        shown = {key: value for key, value in properties.plain(given).items() if value is not UNKNOWN}
        failures = [
            provider_pb2.CheckFailure(property=key, reason=reason)
            for key, reason in unsupported(shown).items()
        ]
        if not any(properties.has_unknown(given.get(key)) for key in ("kubeconfig", "context")):
            settings = settings_from(shown)
            if settings.kubeconfig or settings.context:
                try:
                    connect(settings)
                except KubeconfigError as error:
                    failures.append(provider_pb2.CheckFailure(property=error.key, reason=str(error)))
        return provider_pb2.CheckResponse(inputs=request.news, failures=failures)

    @_answering
    def DiffConfig(
        self, request: provider_pb2.DiffRequest, context: grpc.ServicerContext
    ) -> provider_pb2.DiffResponse:
        """Replace the provider (and with it what it manages) only when it moves to another API server."""
        olds, news = properties.decode(request.olds), properties.decode(request.news)
        keys = [key for key in sorted({*olds, *news}) if olds.get(key) != news.get(key)]
        if not keys:
            return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)
        deciding = [key for key in keys if key in ("kubeconfig", "context")]
        replaces: list[str] = []
        if "clusterIdentifier" in olds or "clusterIdentifier" in news:
            replaces = [key for key in keys if key == "clusterIdentifier"]
        elif any(properties.has_unknown(news.get(key)) for key in deciding) or _server(olds) != _server(news):
            replaces = deciding
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME, diffs=keys, replaces=replaces
        )

    def Configure(
        self, request: provider_pb2.ConfigureRequest, context: grpc.ServicerContext
    ) -> provider_pb2.ConfigureResponse:
        """Connect. A cluster that cannot be asked is no error yet: a preview works without it."""
        self._log.say_once(NOTICE, severity=WARNING)
        self._settings = settings_from(properties.plain(properties.decode(request.args)))
        try:
            cluster, self._namespace = connect(self._settings)
            cluster.get("/version")
            self._cluster, self._unreachable = cluster, ""
        except (KubeconfigError, UnreachableError) as error:
            self._unreachable = str(error)
        except ClusterError as error:
            self._unreachable = f"the Kubernetes API server {cluster.server} refused to answer: {error}"
        if self._unreachable:
            self._log.say_once(self._unreachable, severity=WARNING)
        return provider_pb2.ConfigureResponse(
            acceptSecrets=True, supportsPreview=True, supports_autonaming_configuration=True
        )

    def Cancel(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """End every wait; what was created stays in the state as not ready."""
        self.stop()
        return empty_pb2.Empty()

    def stop(self) -> None:
        """End every wait of this process."""
        self._stop.set()

    # --- objects

    @_answering
    def Check(
        self, request: provider_pb2.CheckRequest, context: grpc.ServicerContext
    ) -> provider_pb2.CheckResponse:
        """Refuse what the stand-in cannot manage, name the object and put it into its namespace."""
        if is_release(request.urn):
            return self._releases().check(request)
        _require_supported(request.urn, request.type)
        news = properties.decode(request.news)
        old_inputs = properties.plain(properties.decode(request.olds))
        failures = [
            provider_pb2.CheckFailure(property=key, reason=f"{key} is required, for example {example}")
            for key, example in (("apiVersion", "v1"), ("kind", "ConfigMap"))
            if not news.get(key)
        ]
        if news.get("metadata") is None:
            news["metadata"] = {}
        if failures:
            return provider_pb2.CheckResponse(inputs=properties.encode(news), failures=failures)

        annotations = properties.plain(conditions.annotations_of(news))
        if not properties.has_unknown(annotations):
            shown = {"metadata": {"annotations": annotations}}
            conditions.requirements(shown)
            conditions.timeout_seconds(shown, 0)
        naming.assign_name(
            news,
            old_inputs,
            request.urn,
            request.randomSeed,
            request.autonaming if request.HasField("autonaming") else None,
        )
        metadata = news["metadata"]
        if isinstance(metadata, dict) and not metadata.get("namespace") and self._is_namespaced(news):
            metadata["namespace"] = self._namespace
        return provider_pb2.CheckResponse(inputs=properties.encode(properties.mark_secrets(news, {})))

    @_answering
    def Diff(
        self, request: provider_pb2.DiffRequest, context: grpc.ServicerContext
    ) -> provider_pb2.DiffResponse:
        """Compare with what was last seen of the object, cut down to what the old inputs had."""
        if is_release(request.urn):
            return self._releases().diff(request)
        wanted = properties.to_object(properties.decode(request.news))
        old_inputs, live = properties.split_state(properties.decode(request.olds))
        if not old_inputs:
            old_inputs = properties.to_object(properties.decode(request.old_inputs))
        base = differences.prune(live, old_inputs)
        if wanted.get("kind") == "Secret" and "stringData" in old_inputs:
            base["stringData"] = old_inputs["stringData"]  # never read back from the server
        found = differences.differences(
            base,
            wanted,
            differences.replacing_paths(
                wanted,
                config_maps_mutable=self._settings.flag("enableConfigMapMutable"),
                secrets_mutable=self._settings.flag("enableSecretMutable"),
            ),
        )
        for pattern in request.ignoreChanges:
            found = {path: kind for path, kind in found.items() if not differences.matches(pattern, path)}
        kinds = differences.Kind
        replaces = [
            path
            for path, change in found.items()
            if change.kind in (kinds.ADD_REPLACE, kinds.DELETE_REPLACE, kinds.UPDATE_REPLACE)
        ]
        old, new = live.get("metadata") or {}, wanted.get("metadata") or {}
        same_place = old.get("name") == new.get("name") and old.get("namespace") == new.get("namespace")
        changes = provider_pb2.DiffResponse
        return provider_pb2.DiffResponse(
            changes=changes.DIFF_SOME if found else changes.DIFF_NONE,
            replaces=replaces,
            # Two objects of one name cannot be there at a time.
            deleteBeforeReplace=bool(replaces) and same_place and not naming.is_autonamed(wanted),
            detailedDiff=found,
            hasDetailedDiff=True,
        )

    @_answering
    def Create(
        self, request: provider_pb2.CreateRequest, context: grpc.ServicerContext
    ) -> provider_pb2.CreateResponse:
        """Apply a new object and wait until it is ready.

        An object that exists already is refused, as the official provider does, unless this very resource
        made it in a run that was interrupted before the state was written.
        """
        if is_release(request.urn):
            return self._releases().create(request)
        given = properties.decode(request.properties)
        wanted = properties.to_object(given)
        manager = _field_manager(request.urn, {}, wanted)
        if request.preview:
            seen = self._preview(wanted, manager, request.urn, exists=False)
            if seen is None:
                return provider_pb2.CreateResponse(properties=request.properties)
            seen.pop("status", None)
            state = properties.checkpoint(seen, given, manager, wanted["apiVersion"])
            return provider_pb2.CreateResponse(properties=properties.encode(state))

        cluster = self._reach()
        conditions.timeout_seconds(wanted, request.timeout)
        baseline = Baseline.take(cluster, wanted) if is_inference_service(wanted) else None
        live, changed = self._create(cluster, wanted, manager, request.urn)
        live = self._finish(
            cluster, live, baseline, given, wanted, manager, request.urn, request.timeout, changed=changed
        )
        state = properties.checkpoint(live, given, manager, wanted["apiVersion"])
        return provider_pb2.CreateResponse(id=_id(live), properties=properties.encode(state))

    @_answering
    def Update(
        self, request: provider_pb2.UpdateRequest, context: grpc.ServicerContext
    ) -> provider_pb2.UpdateResponse:
        """Apply the changed object and wait until it is ready.

        An object that somebody deleted meanwhile is made again, with a warning.
        """
        if is_release(request.urn):
            return self._releases().update(request)
        given = properties.decode(request.news)
        wanted = properties.to_object(given)
        old_state = properties.decode(request.olds)
        manager = _field_manager(request.urn, old_state, wanted)
        if request.preview:
            seen = self._preview(wanted, manager, request.urn, exists=True)
            if seen is None:
                return provider_pb2.UpdateResponse(properties=request.news)
            state = properties.checkpoint(seen, given, manager, wanted["apiVersion"])
            return provider_pb2.UpdateResponse(properties=properties.encode(state))

        cluster = self._reach()
        path = _path(cluster, wanted)
        try:
            before = cluster.get(path)
        except ClusterError as error:
            if not error.not_found:
                raise
            self._log.say(
                f"{_title(wanted)} was no longer in the cluster; it is created again",
                severity=WARNING,
                urn=request.urn,
            )
            before = None
        baseline = Baseline.take(cluster, wanted) if is_inference_service(wanted) else None
        live = self._apply(cluster, path, wanted, manager, request.urn, dry_run=False)
        changed = _is_changed(before, live)
        live = self._finish(
            cluster, live, baseline, given, wanted, manager, request.urn, request.timeout, changed=changed
        )
        state = properties.checkpoint(live, given, manager, wanted["apiVersion"])
        return provider_pb2.UpdateResponse(properties=properties.encode(state))

    @_answering
    def Read(
        self, request: provider_pb2.ReadRequest, context: grpc.ServicerContext
    ) -> provider_pb2.ReadResponse:
        """Read the object for a refresh, or by `namespace/name` for an import.

        Inputs are the old ones with the values the cluster has now; for an import, everything that the
        server did not fill in by itself.
        """
        if self._cluster is None:
            if self._settings.flag("deleteUnreachable"):
                self._say_forgotten(request.urn)
                return provider_pb2.ReadResponse()
            self._reach()
        if is_release(request.urn):
            return self._releases().read(request)
        cluster = self._reach()
        given = properties.decode(request.inputs)
        old_state = properties.decode(request.properties)
        old_inputs, old_live = properties.to_object(given), properties.split_state(old_state)[1]
        # A resource that a program only reads (`.get`) has no inputs in a refresh either.
        external = not old_inputs.get("kind")
        importing = external and not old_live.get("kind")
        api_version, kind = _kind(
            request.urn, request.type, old_inputs if old_inputs.get("kind") else old_live
        )
        namespace, _, name = request.id.rpartition("/")
        try:
            resource = cluster.resource_type(api_version, kind)
            live = cluster.get(resource.path(self._in_namespace(resource, namespace), name))
        except UnknownKindError:
            if importing:
                raise
            return provider_pb2.ReadResponse()
        except ClusterError as error:
            if error.not_found:
                return provider_pb2.ReadResponse()
            raise
        if external:
            inputs = _importable(live)
        else:
            inputs = differences.prune(live, old_inputs)
            if "stringData" in old_inputs:
                inputs["stringData"] = old_inputs["stringData"]
        marked = properties.mark_secrets(properties.from_object(inputs), given)
        manager = _field_manager(request.urn, old_state, inputs)
        state = properties.checkpoint(live, marked, manager, api_version)
        return provider_pb2.ReadResponse(
            id=request.id, properties=properties.encode(state), inputs=properties.encode(marked)
        )

    @_answering
    def Delete(self, request: provider_pb2.DeleteRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Delete the object and wait until it is gone; one that is gone already is fine."""
        if self._cluster is None and self._settings.flag("deleteUnreachable"):
            self._say_forgotten(request.urn)
            return empty_pb2.Empty()
        if is_release(request.urn):
            self._releases().delete(request)
            return empty_pb2.Empty()
        cluster = self._reach()
        old_inputs, live = properties.split_state(properties.decode(request.properties))
        try:
            resource = cluster.resource_type(live["apiVersion"], live["kind"])
        except UnknownKindError:
            return empty_pb2.Empty()  # its CRD is gone, and every object of it
        metadata = live["metadata"]
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        propagation = conditions.annotations_of(old_inputs).get(conditions.DELETION_PROPAGATION, "foreground")
        seconds = conditions.timeout_seconds(old_inputs, request.timeout)
        try:
            cluster.delete(resource.path(namespace, name), propagation.capitalize())
        except ClusterError as error:
            if error.not_found:
                return empty_pb2.Empty()
            raise
        watcher = Watcher(cluster, self._stop)
        followed = watcher.follow(resource.path(namespace), fieldSelector=f"metadata.name={name}")

        def gone() -> Verdict:
            now = followed.items.get(metadata.get("uid", "")) if metadata.get("uid") else None
            if now is None and (metadata.get("uid") or not followed.items):
                return Verdict(True)
            left = (now or next(iter(followed.items.values())))["metadata"].get("finalizers") or []
            return Verdict(False, f"waiting for finalizers: {', '.join(left) or 'none, it is ending'}")

        outcome = watcher.wait(gone, seconds, self._progress(request.urn))
        self._progress(request.urn)("")
        if not outcome.done:
            raise RefusedError(
                f"{_title(live)} is marked for deletion but not gone "
                f"{'(cancelled)' if outcome.cancelled else f'after {seconds:.0f} s'}: {outcome.message}. "
                "fix: see why these finalizers are not removed, then run the command again"
            )
        return empty_pb2.Empty()

    # --- what the stand-in does not do

    def Invoke(
        self, request: provider_pb2.InvokeRequest, context: grpc.ServicerContext
    ) -> provider_pb2.InvokeResponse:
        """Refuse: the functions of the provider are about Helm templates, kustomizations and YAML files."""
        _not_implemented(context, f"the function {request.tok}")

    def Call(
        self, request: provider_pb2.CallRequest, context: grpc.ServicerContext
    ) -> provider_pb2.CallResponse:
        """Refuse."""
        _not_implemented(context, f"the method {request.tok}")

    def Construct(
        self, request: provider_pb2.ConstructRequest, context: grpc.ServicerContext
    ) -> provider_pb2.ConstructResponse:
        """Refuse: the components of the provider are about Helm charts, kustomizations and YAML files."""
        _not_implemented(context, f"the component {request.type}")

    # --- helpers

    def _releases(self) -> Releases:
        return Releases(
            self._settings, self._namespace, self._cluster, self._unreachable, self._log, self._stop
        )

    def _reach(self) -> Cluster:
        if self._cluster is None:
            raise RefusedError(self._unreachable)
        return self._cluster

    def _say_forgotten(self, urn: str) -> None:
        self._log.say(
            f"{self._unreachable}; deleteUnreachable is on, so the resource is taken out of the state",
            severity=WARNING,
            urn=urn,
        )

    def _progress(self, urn: str) -> Callable[[str], None]:
        return lambda message: self._log.say(message, severity=INFO, urn=urn, passing=True)

    def _is_namespaced(self, wanted: dict[str, Any]) -> bool:
        """Say whether the kind lives in a namespace; a kind whose CRD is still to come is taken to."""
        if self._cluster is not None:
            try:
                return self._cluster.resource_type(wanted["apiVersion"], wanted["kind"]).namespaced
            except (UnknownKindError, UnreachableError):
                pass
        return wanted["kind"] not in _CLUSTER_SCOPED

    def _in_namespace(self, resource: ResourceType, namespace: str) -> str:
        return namespace or (self._namespace if resource.namespaced else "")

    def _preview(
        self, wanted: dict[str, Any], manager: str, urn: str, *, exists: bool
    ) -> dict[str, Any] | None:
        """Apply as a dry run; None where that cannot say anything yet.

        So it is with unknown values, with a kind or a namespace that an earlier step creates, with a
        cluster that is not there, and where a webhook or this user's rights do not allow dry runs.
        A webhook's denial is an error, also where the official provider takes it for a lack of rights.
        """
        if self._cluster is None or properties.has_unknown(wanted):
            return None
        try:
            path = _path(self._cluster, wanted)
            if not exists:
                try:
                    self._existing_of_ours(self._cluster, path, wanted, manager)
                except RefusedError as error:
                    # A warning only: a step before this one may be about to delete it.
                    self._log.say(str(error), severity=WARNING, urn=urn)
            try:
                return self._apply(self._cluster, path, wanted, manager, urn, dry_run=True, force=not exists)
            except ClusterError as error:
                if not error.immutable or exists:
                    raise
                # To be replaced: the old object is still there, so ask about one of another name.
                other = {**wanted, "metadata": {**wanted["metadata"], "name": f"{_name(wanted)}-preview"}}
                seen = self._apply(
                    self._cluster, _path(self._cluster, other), other, manager, urn, dry_run=True
                )
                seen["metadata"]["name"] = _name(wanted)
                return seen
        except UnknownKindError:
            return None
        except ClusterError as error:
            if error.namespace_missing or error.cannot_dry_run:
                return None
            raise

    def _create(
        self, cluster: Cluster, wanted: dict[str, Any], manager: str, urn: str
    ) -> tuple[dict[str, Any], bool]:
        """Apply a new object; returns it, and whether that changed anything (it may be ours already)."""
        pause = FIRST_PAUSE
        for attempt in range(1, CREATE_ATTEMPTS + 1):
            try:
                path = _path(cluster, wanted)
                before = self._existing_of_ours(cluster, path, wanted, manager)
                live = self._apply(cluster, path, wanted, manager, urn, dry_run=False)
                return live, _is_changed(before, live)
            except (UnknownKindError, ClusterError) as error:
                if isinstance(error, ClusterError) and not error.not_found:
                    raise
                if attempt == CREATE_ATTEMPTS:
                    raise
                self._progress(urn)(f"attempt {attempt}: {error}")
                if self._stop.wait(pause):
                    raise RefusedError(f"{_title(wanted)}: cancelled; {error}") from error
                pause *= 2
        raise AssertionError("the last attempt returns or raises")

    def _existing_of_ours(
        self, cluster: Cluster, path: str, wanted: dict[str, Any], manager: str
    ) -> dict[str, Any] | None:
        """Return the object if it is there and may be changed, None if it is not there; refuse any other."""
        try:
            there = cluster.get(path)
        except ClusterError as error:
            if error.not_found:
                return None
            raise
        ours = any(
            entry.get("manager") == manager and entry.get("operation") == "Apply"
            for entry in there["metadata"].get("managedFields") or []
        )
        if ours or self._settings.flag("upsertExistingObjects"):
            return there
        raise RefusedError(
            f"{_title(wanted)} exists in the cluster already, and this stack did not make it. "
            f"fix: take it over with `pulumi import`, choose another name, or delete it; the provider's "
            "upsertExistingObjects changes it in place"
        )

    def _apply(
        self,
        cluster: Cluster,
        path: str,
        wanted: dict[str, Any],
        manager: str,
        urn: str,
        *,
        dry_run: bool,
        force: bool = False,
    ) -> dict[str, Any]:
        """Apply; a conflict with another manager is refused unless the program or the provider forces it."""
        force = (
            force
            or conditions.is_true(wanted, conditions.PATCH_FORCE)
            or self._settings.flag("enablePatchForce")
        )
        try:
            applied = cluster.apply(path, wanted, manager, force=force, dry_run=dry_run)
        except ClusterError as error:
            if not error.conflict:
                raise
            others = [str(cause.get("message", "")) for cause in error.causes]
            if not others or not all(_of_person(message) for message in others):
                raise RefusedError(_conflict(wanted, error)) from error
            applied = cluster.apply(path, wanted, manager, force=True, dry_run=dry_run)
        for warning in applied.warnings:
            self._log.say(f"{_title(wanted)}: {warning}", severity=WARNING, urn=urn)
        return applied.object

    def _finish(
        self,
        cluster: Cluster,
        live: dict[str, Any],
        baseline: Baseline | None,
        given: dict[str, Any],
        wanted: dict[str, Any],
        manager: str,
        urn: str,
        requested: float,
        *,
        changed: bool,
    ) -> dict[str, Any]:
        """Wait until the object is ready; returns it as it is then."""
        if conditions.is_true(wanted, conditions.SKIP_AWAIT):
            return live
        required = conditions.requirements(wanted)
        group = differences.group_of(wanted["apiVersion"])
        if not required and (group, wanted["kind"]) in NOT_AWAITED:
            self._log.say(
                f"the stand-in does not wait for a {wanted['kind']}; the official plugin does. fix: say what "
                f"to wait for with the annotation {conditions.WAIT_FOR}",
                severity=WARNING,
                urn=urn,
            )
        watcher = Watcher(cluster, self._stop)
        seconds = conditions.timeout_seconds(wanted, requested)
        begun = time.monotonic()
        outcome = Outcome(True, False, "")
        try:
            check = readiness(cluster, watcher, live, required, baseline, changed=changed)
            if check is not None:
                outcome = watcher.wait(check, seconds, self._progress(urn))
                self._progress(urn)("")  # takes the last progress line off the display
                live = cluster.get(_path(cluster, live))
        except (ClusterError, UnreachableError, UnknownKindError) as error:
            outcome = Outcome(False, False, str(error))
        if outcome.done:
            return live
        spent = time.monotonic() - begun
        reasons = [] if outcome.cancelled else diagnosis.reasons(cluster, live, manager)
        if outcome.message and not any(outcome.message in reason for reason in reasons):
            reasons.insert(0, outcome.message)
        what = ", ".join(requirement.text for requirement in required) or "its rollout"
        how = "the wait was cancelled" if outcome.cancelled else "not ready"
        # The engine shows the reasons and not the message, so what happened is the first of them.
        message = f"{_title(live)}: {how} after {spent:.0f} s (waited for {what})"
        raise PartialError(
            id=_id(live),
            state=properties.checkpoint(live, given, manager, wanted["apiVersion"]),
            inputs=properties.encode(given),
            message=message,
            reasons=[message, *(reasons or ["no reason is known"])],
        )


def _require_supported(urn: str, token: str) -> None:
    """Refuse the kinds that are no plain Kubernetes object."""
    token = token or urn.split("::")[2].rsplit("$", 1)[-1]
    kind = token.rsplit(":", 1)[-1]
    if kind.endswith("Patch") or kind.endswith("List") or "helm.sh" in token:
        raise RefusedError(
            f"{token}: the stand-in for pulumi-resource-kubernetes manages single objects and Helm "
            "releases only (no Patch, List or Chart). fix: install the official plugin, or declare the "
            "object itself"
        )


def _kind(urn: str, token: str, known: dict[str, Any]) -> tuple[str, str]:
    """Return (apiVersion, kind) of the known object, else of a type like `kubernetes:apps/v1:Deployment`."""
    if known.get("kind"):
        return str(known["apiVersion"]), str(known["kind"])
    token = token or urn.split("::")[2].rsplit("$", 1)[-1]
    _, _, rest = token.partition(":")
    api_version, _, kind = rest.rpartition(":")
    return api_version.removeprefix("core/"), kind


def _name(wanted: dict[str, Any]) -> str:
    return str(wanted["metadata"]["name"])


def _path(cluster: Cluster, wanted: dict[str, Any]) -> str:
    resource = cluster.resource_type(wanted["apiVersion"], wanted["kind"])
    return resource.path(wanted["metadata"].get("namespace", ""), _name(wanted))


def _is_changed(before: dict[str, Any] | None, live: dict[str, Any]) -> bool:
    """Say whether an apply changed the object; the server keeps the version where it did not."""
    return before is None or (
        before["metadata"].get("resourceVersion") != live["metadata"].get("resourceVersion")
    )


def _id(live: dict[str, Any]) -> str:
    namespace = live["metadata"].get("namespace")
    return f"{namespace}/{_name(live)}" if namespace else _name(live)


def _title(wanted: dict[str, Any]) -> str:
    return f"{wanted['kind']} {_id(wanted)}"


def _field_manager(urn: str, state: dict[str, Any], wanted: dict[str, Any]) -> str:
    chosen = conditions.annotations_of(wanted).get(conditions.PATCH_FIELD_MANAGER)
    kept = properties.plain(state.get(properties.STATE_FIELD_MANAGER))
    return str(chosen or kept or naming.field_manager(urn))


def _server(given: dict[str, Any]) -> str:
    """Return the API server that provider settings lead to, "" where that cannot be told."""
    settings: Settings = settings_from(
        {key: value for key, value in properties.plain(given).items() if value is not UNKNOWN}
    )
    try:
        found = find_kubeconfig(settings.kubeconfig)
        return found.server(settings.context) if found else ""
    except KubeconfigError:
        return ""


def _of_person(conflict: str) -> bool:
    return any(f'conflict with "{name}' in conflict for name in _PERSONS)


def _conflict(wanted: dict[str, Any], error: ClusterError) -> str:
    fields = "; ".join(
        f"{cause.get('field', '?')}: {cause.get('message', '')}" for cause in error.causes
    ) or str(error)
    return (
        f"{_title(wanted)}: another field manager owns what this would change: {fields}. fix: take the field "
        f'out of the program, or set the annotation {conditions.PATCH_FORCE}: "true" to take it over'
    )


def _importable(live: dict[str, Any]) -> dict[str, Any]:
    """Return an object without what the server filled in."""
    metadata = {key: value for key, value in live["metadata"].items() if key not in _SERVER_METADATA}
    annotations = {
        key: value
        for key, value in (metadata.get("annotations") or {}).items()
        if key not in _SERVER_ANNOTATIONS
    }
    metadata.pop("annotations", None)
    if annotations:
        metadata["annotations"] = annotations
    return {**{key: value for key, value in live.items() if key != "status"}, "metadata": metadata}


def _not_implemented(context: grpc.ServicerContext, what: str) -> NoReturn:
    context.abort(
        grpc.StatusCode.UNIMPLEMENTED,
        f"the stand-in for pulumi-resource-kubernetes does not have {what}; the official plugin does",
    )
    raise AssertionError("abort always raises")


def main(arguments: Sequence[str]) -> int:
    """Serve one engine; arguments are those it starts a provider with."""
    provider = Provider(EngineLog(engine_address(arguments)))
    return serve(
        lambda server: provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server),
        provider.stop,
    )
