"""What the provider stand-ins share: being known to the engine as the plugin that they stand in for."""

# ruff: noqa: ARG002 (the service definition fixes the parameters of every method)

from __future__ import annotations

import json
from typing import ClassVar

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from local.standins.plugin import EngineLog


class StandInProvider(provider_pb2_grpc.ResourceProviderServicer):
    """The part of the service that says who is there. NAME and VERSION are the official plugin's."""

    NAME: ClassVar[str]
    VERSION: ClassVar[str]

    def __init__(self, log: EngineLog) -> None:
        """Log: to the engine that started this process."""
        self._log = log

    def Handshake(
        self, request: provider_pb2.ProviderHandshakeRequest, context: grpc.ServicerContext
    ) -> provider_pb2.ProviderHandshakeResponse:
        """Take the engine's address and say which kinds of values are understood."""
        self._log.connect(request.engine_address)
        return provider_pb2.ProviderHandshakeResponse(
            accept_secrets=True, accept_outputs=False, supports_autonaming_configuration=True
        )

    def Attach(self, request: plugin_pb2.PluginAttach, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Take the address of an engine that attaches to a running provider."""
        self._log.connect(request.address)
        return empty_pb2.Empty()

    def GetPluginInfo(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> plugin_pb2.PluginInfo:
        """The version of the official plugin that this one stands in for."""
        return plugin_pb2.PluginInfo(version=self.VERSION)

    def GetSchema(
        self, request: provider_pb2.GetSchemaRequest, context: grpc.ServicerContext
    ) -> provider_pb2.GetSchemaResponse:
        """A schema without resources: enough to say who we are, not to generate code from."""
        schema = json.dumps({"name": self.NAME, "version": self.VERSION})
        return provider_pb2.GetSchemaResponse(schema=schema)
