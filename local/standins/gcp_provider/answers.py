"""Between the wire and the rest: requests to resource types, findings and errors to what the user reads."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import grpc
from google.protobuf import struct_pb2
from pulumi.runtime.proto import provider_pb2

from local.standins import properties
from local.standins.gcp_provider import made_up, operations, outputs
from local.standins.gcp_provider.cloud import CloudFileError, GoogleError
from local.standins.gcp_provider.findings import Finding
from local.standins.gcp_provider.kinds import KINDS
from local.standins.gcp_provider.resources import Kind
from local.standins.gcp_provider.sdk_types import SdkError

VERSION = "10.2.0"
FIX = f"pulumi plugin install resource gcp {VERSION}"

Method = TypeVar("Method", bound=Callable[..., Any])


class RefusedError(Exception):
    """An operation that is not carried out; the message is for the user."""


def answering(method: Method) -> Method:
    """Turn the exceptions of a method into gRPC errors whose text is what the user reads."""

    @functools.wraps(method)
    def wrapper(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        code = grpc.StatusCode
        try:
            return method(self, request, context)
        except (RefusedError, operations.ProtectedError, properties.UnsupportedValueError) as error:
            context.abort(code.INVALID_ARGUMENT, str(error))
        except (CloudFileError, SdkError, made_up.KubeconfigError) as error:
            context.abort(code.FAILED_PRECONDITION, str(error))
        except GoogleError as error:
            context.abort(code.NOT_FOUND if error.code == 404 else code.UNKNOWN, str(error))
        except Exception as error:
            # The engine hides a plugin's output, so the whole story has to be in the message.
            story = "".join(traceback.format_exception(error))
            context.abort(code.INTERNAL, f"a fault of the stand-in itself:\n{story}")

    return wrapper  # type: ignore[return-value]


def missing(what: str, there: Iterable[str]) -> str:
    """Return the refusal of something that only the official plugin has; there: what the stand-in has."""
    listed = ", ".join(sorted(there))
    return (
        f"the stand-in for pulumi-resource-gcp does not have {what}; the official plugin does. "
        + (f"allowed: {listed}. " if listed else "")
        + f"fix: {FIX}"
    )


def kind_of(request: Any) -> Kind:
    """Return the resource type that a request is about, refusing those that the stand-in does not have."""
    token = request.type or request.urn.split("::")[2].rsplit("$", 1)[-1]
    kind = KINDS.get(token)
    if kind is None:
        raise RefusedError(missing(f"the resource type {token}", KINDS))
    return kind


def failures(found: Iterable[Finding], shown: dict[str, Any]) -> list[provider_pb2.CheckFailure]:
    """Turn findings into what the engine shows.

    The path is in the reason: the engine can only show the value of a top-level property, and would print
    that of a secret one.
    """
    return [provider_pb2.CheckFailure(reason=str(finding.problem(shown))) for finding in found]


def shown(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return plain inputs without nulls and without the bookkeeping of names."""
    return {
        key: properties.plain(item)
        for key, item in inputs.items()
        if not key.startswith("__") and item is not None
    }


def named(kind: Kind, resolved: dict[str, Any]) -> str:
    """Return the Google resource name of complete inputs."""
    name = kind.resource_name(resolved)
    if name is None:
        raise RefusedError(
            f"{kind.title}: a part of its name is missing. allowed: {kind.resource}. fix: give it"
        )
    return name


def encoded(state: dict[str, Any], given: dict[str, Any]) -> struct_pb2.Struct:
    """Return outputs for the wire, in which what was secret in the inputs is secret again."""
    return properties.encode(properties.mark_secrets(outputs.with_secrets(state), given))
