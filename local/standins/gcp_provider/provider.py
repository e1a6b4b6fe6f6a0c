"""The ResourceProvider service of the stand-in: what the engine calls for each Google Cloud resource.

The order of events is the official provider's (pulumi-gcp 10.2.0): Check judges and names, Diff compares,
a preview leaves unknown what only Google can say. On purpose it judges more in Check than the official one
does, so that a preview shows what there only `up` would.
"""

# ruff: noqa: ARG002 (the service definition fixes the parameters of every method)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from local.standins import properties
from local.standins.gcp_provider import functions, made_up, naming, operations, outputs
from local.standins.gcp_provider.answers import (
    FIX,
    VERSION,
    RefusedError,
    answering,
    encoded,
    failures,
    kind_of,
    missing,
    named,
    shown,
)
from local.standins.gcp_provider.changes import REPLACING, changes
from local.standins.gcp_provider.cloud import Cloud
from local.standins.gcp_provider.discovery import missing_notice
from local.standins.gcp_provider.resources import Kind
from local.standins.gcp_provider.rules import check_inputs
from local.standins.gcp_provider.settings import check_settings, settings_from
from local.standins.plugin import WARNING, EngineLog, engine_address, serve
from local.standins.provider import StandInProvider

NOTICE = (
    "Using a STAND-IN for pulumi-resource-gcp, because the official plugin is not there: NOTHING is created "
    f"in Google Cloud, resources exist only in a local file. fix: {FIX}; it is then used by itself."
)


class Provider(StandInProvider):
    """The service. One instance serves one provider resource of one engine."""

    NAME = "gcp"
    VERSION = VERSION

    def __init__(self, log: EngineLog, cloud: Cloud | None = None) -> None:
        """Log: to the engine that started this process; cloud: the file, by default the environment's."""
        super().__init__(log)
        self._cloud = cloud or Cloud()
        self._settings = settings_from({})

    # --- the plugin and its configuration

    @answering
    def CheckConfig(
        self, request: provider_pb2.CheckRequest, context: grpc.ServicerContext
    ) -> provider_pb2.CheckResponse:
        """Refuse settings that the provider does not have, and names that Google cannot have."""
        given = properties.decode(request.news)
        found = check_settings(properties.plain(given))
        return provider_pb2.CheckResponse(inputs=request.news, failures=failures(found, given))

    @answering
    def DiffConfig(
        self, request: provider_pb2.DiffRequest, context: grpc.ServicerContext
    ) -> provider_pb2.DiffResponse:
        """Replace nothing: where resources move to another project, their own Diff says so."""
        olds, news = properties.decode(request.olds), properties.decode(request.news)
        keys = [key for key in sorted({*olds, *news}) if olds.get(key) != news.get(key)]
        changed = provider_pb2.DiffResponse
        return changed(changes=changed.DIFF_SOME if keys else changed.DIFF_NONE, diffs=keys)

    @answering
    def Configure(
        self, request: provider_pb2.ConfigureRequest, context: grpc.ServicerContext
    ) -> provider_pb2.ConfigureResponse:
        """Take the settings, and say that this is a stand-in."""
        self._log.say_once(f"{NOTICE} The file: {self._cloud.path}", severity=WARNING)
        if missing_notice():
            self._log.say_once(missing_notice(), severity=WARNING)
        self._settings = settings_from(properties.plain(properties.decode(request.args)))
        return provider_pb2.ConfigureResponse(
            acceptSecrets=True, supportsPreview=True, supports_autonaming_configuration=True
        )

    def Cancel(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Nothing here waits for anything."""
        return empty_pb2.Empty()

    # --- resources

    @answering
    def Check(
        self, request: provider_pb2.CheckRequest, context: grpc.ServicerContext
    ) -> provider_pb2.CheckResponse:
        """Name the resource and say everything that is wrong with its inputs."""
        kind = kind_of(request)
        news = {key: item for key, item in properties.decode(request.news).items() if item is not None}
        olds = properties.plain(properties.decode(request.olds))
        options = request.autonaming if request.HasField("autonaming") else None
        unnamed = naming.assign_name(kind, news, olds, request.urn, request.randomSeed, options)
        found = [unnamed] if unnamed else []
        found += check_inputs(kind, news, self._settings)
        seen = {**kind.resolve(news, self._settings), **news}
        return provider_pb2.CheckResponse(inputs=properties.encode(news), failures=failures(found, seen))

    @answering
    def Diff(
        self, request: provider_pb2.DiffRequest, context: grpc.ServicerContext
    ) -> provider_pb2.DiffResponse:
        """Compare inputs; what changed in "the cloud" is among the old ones after a refresh."""
        kind = kind_of(request)
        state, news = properties.decode(request.olds), properties.decode(request.news)
        olds = properties.decode(request.old_inputs)
        found = changes(kind, olds, state, news, self._settings, list(request.ignoreChanges))
        replaces = [path for path, change in found.items() if change.kind in REPLACING]
        before = kind.resource_name({**properties.plain(olds), **_place(kind, state)})
        after = kind.resource_name(kind.resolve(properties.plain(news), self._settings))
        answer = provider_pb2.DiffResponse
        return answer(
            changes=answer.DIFF_SOME if found else answer.DIFF_NONE,
            replaces=replaces,
            diffs=sorted({path.split(".")[0].split("[")[0] for path in found}),
            # Two resources of one name cannot be there at a time; a made-up name is made up anew.
            deleteBeforeReplace=bool(replaces) and before == after and not naming.is_autonamed(kind, news),
            detailedDiff=found,
            hasDetailedDiff=True,
        )

    @answering
    def Create(
        self, request: provider_pb2.CreateRequest, context: grpc.ServicerContext
    ) -> provider_pb2.CreateResponse:
        """Add a new resource to "the cloud"; in a preview, say what is known of it already."""
        kind = kind_of(request)
        given = properties.decode(request.properties)
        resolved = kind.resolve(shown(given), self._settings)
        if request.preview:
            state = outputs.previewed(kind, resolved, self._settings)
            return provider_pb2.CreateResponse(properties=encoded(state, given))
        name = named(kind, resolved)
        state = outputs.created(kind, name, resolved, self._settings)
        with self._cloud.change() as document:
            there = document["resources"].get(name)
            if there and resolved.get("createIgnoreAlreadyExists") is True:
                state = {**there["state"], **resolved}
            else:
                operations.create(document, kind, name, state)
        return provider_pb2.CreateResponse(id=kind.resource_id(resolved), properties=encoded(state, given))

    @answering
    def Update(
        self, request: provider_pb2.UpdateRequest, context: grpc.ServicerContext
    ) -> provider_pb2.UpdateResponse:
        """Change a resource in "the cloud"; what Google made up for it stays."""
        kind = kind_of(request)
        given = properties.decode(request.news)
        old_state = properties.plain(properties.decode(request.olds))
        old_inputs = shown(properties.decode(request.old_inputs))
        resolved = kind.resolve(shown(given), self._settings)
        name = None if request.preview else named(kind, resolved)
        state = outputs.updated(kind, name, old_state, old_inputs, resolved, self._settings)
        if name is not None:
            with self._cloud.change() as document:
                operations.update(document, kind, name, state)
        return provider_pb2.UpdateResponse(properties=encoded(state, given))

    @answering
    def Read(
        self, request: provider_pb2.ReadRequest, context: grpc.ServicerContext
    ) -> provider_pb2.ReadResponse:
        """Read a resource for a refresh, or by its id for an import."""
        kind = kind_of(request)
        parsed = kind.parse(request.id)
        if parsed is None:
            raise RefusedError(f"{request.id}: no id of a {kind.title}. allowed: {kind.id}, {kind.resource}")
        name = str(kind.resource_name(kind.resolve(parsed, self._settings)))
        entry = self._cloud.read()["resources"].get(name)
        if entry is None:
            return provider_pb2.ReadResponse()
        state = dict(entry["state"])
        if kind.class_name == "Cluster":
            state |= made_up.live_cluster(state)
        given = properties.decode(request.inputs)
        inputs = properties.mark_secrets(outputs.inputs_of(kind, name, state, given), given)
        return provider_pb2.ReadResponse(
            id=kind.resource_id(state), properties=encoded(state, given), inputs=properties.encode(inputs)
        )

    @answering
    def Delete(self, request: provider_pb2.DeleteRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Remove a resource from "the cloud"; one that is gone already is fine."""
        kind = kind_of(request)
        state = properties.plain(properties.decode(request.properties))
        with self._cloud.change() as document:
            operations.delete(document, kind, named(kind, state), state)
        return empty_pb2.Empty()

    @answering
    def Invoke(
        self, request: provider_pb2.InvokeRequest, context: grpc.ServicerContext
    ) -> provider_pb2.InvokeResponse:
        """Answer a function from "the cloud"."""
        if request.tok not in functions.FUNCTIONS:
            raise RefusedError(missing(f"the function {request.tok}", functions.FUNCTIONS))
        given = properties.decode(request.args)
        found = functions.check_arguments(request.tok, properties.plain(given), self._settings)
        if found:
            return provider_pb2.InvokeResponse(failures=failures(found, given))
        result = functions.call(request.tok, properties.plain(given), self._settings, self._cloud.read())
        answer = provider_pb2.InvokeResponse()
        getattr(answer, "return").CopyFrom(properties.encode(result))  # a keyword of Python
        return answer

    # --- what the stand-in does not do

    @answering
    def Call(
        self, request: provider_pb2.CallRequest, context: grpc.ServicerContext
    ) -> provider_pb2.CallResponse:
        """Refuse."""
        raise RefusedError(missing(f"the method {request.tok}", ()))

    @answering
    def Construct(
        self, request: provider_pb2.ConstructRequest, context: grpc.ServicerContext
    ) -> provider_pb2.ConstructResponse:
        """Refuse."""
        raise RefusedError(missing(f"the component {request.type}", ()))


def _place(kind: Kind, state: dict[str, Any]) -> dict[str, Any]:
    return {
        key: properties.plain(state.get(key)) for key in ("project", kind.place) if key and state.get(key)
    }


def main(arguments: Sequence[str]) -> int:
    """Serve one engine; arguments are those it starts a provider with."""
    provider = Provider(EngineLog(engine_address(arguments)))
    return serve(
        lambda server: provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server),
        lambda: None,
    )
