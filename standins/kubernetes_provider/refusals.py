"""The two ways in which an operation ends without its result: not done, or done only in part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf import struct_pb2


class RefusedError(Exception):
    """An operation that is not carried out; the message is for the user."""


@dataclass
class PartialError(Exception):
    """The object exists, but is not ready: the engine keeps it in the state with the reasons."""

    id: str
    state: dict[str, Any]
    inputs: struct_pb2.Struct
    message: str
    reasons: list[str]
