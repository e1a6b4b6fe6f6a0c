"""The part of the settings that says how a model is offered: by which name, how often, and how it changes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from components.config.autoscaling import AutoscalingSettings
from components.config.fields import Digest, Label, ServiceName
from components.config.section import Section


class ServiceSettings(Section):
    """Keys of a stack that are about the InferenceService."""

    service_name: ServiceName
    served_model_name: str = ""
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
