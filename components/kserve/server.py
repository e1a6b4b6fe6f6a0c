"""A model server, as a program that composes components says it: typed, and checked when it is made."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from components.config.fields import HttpPath, PinnedImage, quantity_field
from components.config.section import Section
from components.config.server import ServerSettings
from components.config.vllm import VllmSettings

_FIELDS = ServerSettings.model_fields


class _Server(Section):
    """What both kinds of servers have.

    image: by digest.
    command: of the container; its arguments follow.
    args: more arguments.
    env: variables. Values may be seen by whoever sees the pod.
    port: that it listens at.
    health_path: that answers 200 once it can serve.
    served_model_name: that clients ask for; the service's name where empty.
    writable_paths: folders of the image that it writes to.
    host_paths: folders of the node, on a machine of one's own.
    """

    image: PinnedImage
    command: tuple[str, ...] = Field(_FIELDS["server_command"].default, min_length=1)
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    port: int = Field(_FIELDS["server_port"].default, ge=1024, le=65535)
    health_path: HttpPath = _FIELDS["health_path"].default
    served_model_name: str = ""
    writable_paths: tuple[str, ...] = ()
    host_paths: tuple[str, ...] = ()


class VllmServer(_Server, VllmSettings):
    """vLLM, with its own arguments typed (`components.config.vllm`); each is left to vLLM where not set.

    kernels: compiled kernels in the model's image: use them where they fit, require that they do, or off.
    """

    kernels: Literal["use", "require", "off"] = "use"


class CustomServer(_Server):
    """Any server that reads a model from /mnt/models and answers its health path."""


class ServerResources(Section):
    """What one pod asks for.

    gpus: of one pod; 0 for a server without.
    cpu: processors. cpu_limit: the most that it may take; as cpu where None.
    memory: of the server. shared_memory: of that, for /dev/shm.
    """

    gpus: int = Field(_FIELDS["gpu_count"].default, ge=0, le=16)
    cpu: Annotated[str, quantity_field("4 or 500m")] = _FIELDS["cpu"].default
    cpu_limit: Annotated[str, quantity_field("4 or 500m")] | None = None
    memory: Annotated[str, quantity_field("16Gi")] = _FIELDS["memory"].default
    shared_memory: Annotated[str, quantity_field("2Gi")] = _FIELDS["shared_memory"].default


class Replicas(Section):
    """How many pods there are, and how they change.

    min, max: between which an autoscaler keeps their number.
    idle: none for now.
    rollout: Recreate ends the former pod before the new one starts; auto takes it for a single pod with GPUs.
    canary_traffic_percent: of requests for the newest revision (Knative).
    """

    min: int = Field(1, ge=0, le=1000)
    max: int = Field(1, ge=1, le=1000)
    idle: bool = False
    rollout: Literal["auto", "Recreate", "RollingUpdate"] = "auto"
    canary_traffic_percent: int | None = Field(None, ge=0, le=100)
