"""The part of the settings that says how a model is offered: by which name, how often, and how it changes."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from components.config.autoscaling import AutoscalingSettings
from components.config.fields import Digest, Label, ServiceName, matches
from components.config.section import Section

#: Empty: as the model is called. A name that begins with - would be an option to the server.
ServedModelName = Annotated[
    str,
    matches(
        re.compile(r"|(?!-)(?=.*\S)[^\x00-\x1f\x7f]{1,1000}"),
        "not a name to ask the server for",
        "a text of at most 1000 characters that does not begin with -, without line breaks",
        "for example qwen, or OWNER/NAME",
    ),
]


class ServiceSettings(Section):
    """Keys of a stack that are about the InferenceService."""

    service_name: ServiceName
    served_model_name: ServedModelName = ""
    placement: Literal["servingRuntime", "storageUriEnv", "storageUris", "imageVolume", "auto"] = (
        "servingRuntime"
    )
    smoke_namespace: Label = "modelcar-smoke"
    rollout: Literal["auto", "Recreate", "RollingUpdate"] = "auto"
    pre_pull: bool = False
    rollback_to: Digest | None = None
    canary_traffic_percent: int | None = Field(None, ge=0, le=100)
    idle: bool = False
    min_replicas: int = Field(1, ge=0, le=1000)
    max_replicas: int = Field(1, ge=1, le=1000)
    await_ready: bool = True
    start_timeout_seconds: int = Field(1800, ge=10, le=86400)
    autoscaling: AutoscalingSettings | None = None
