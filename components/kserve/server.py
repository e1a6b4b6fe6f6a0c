"""A model server, as a program that composes components says it: typed, and checked when it is made."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from components.config.fields import MAY_HOLD_SECRETS, HttpPath, PinnedImage, Processors, memory_field
from components.config.section import Section
from components.config.server import ServerSettings
from components.config.vllm import VllmSettings

_FIELDS = ServerSettings.model_fields


class _Server(Section):
    """What both kinds of servers have.

    image: Image of the server, by digest.
    command: Command of the container; the arguments follow it.
    args: More arguments of the server.
    env: Environment variables. Whoever sees the pod sees their values.
    port: Port that the server listens on.
    health_path: Path that answers 200 once the server can serve.
    served_model_name: Name that clients ask for; by default the service's.
    writable_paths: Folders of the image that the server writes to.
    host_paths: Folders of the node, on a machine of your own.
    read_ahead: Read the model into the node's memory while the server is imported.
    """

    image: PinnedImage
    command: Annotated[tuple[str, ...], MAY_HOLD_SECRETS] = Field(
        _FIELDS["server_command"].default, min_length=1
    )
    args: Annotated[tuple[str, ...], MAY_HOLD_SECRETS] = ()
    env: Annotated[dict[str, str], MAY_HOLD_SECRETS] = Field(default_factory=dict)
    port: int = Field(_FIELDS["server_port"].default, ge=1024, le=65535)
    health_path: HttpPath = _FIELDS["health_path"].default
    served_model_name: str = ""
    writable_paths: tuple[str, ...] = ()
    host_paths: tuple[str, ...] = ()
    read_ahead: bool = False


class VllmServer(_Server, VllmSettings):
    """vLLM, with its own arguments typed; each is left to vLLM where it is not set.

    tensor_parallel_size: GPUs that share each layer; all GPUs of the pod where this and
        pipeline_parallel_size are not set.
    kernels: Compiled kernels in the model's image: use them where they fit, require that they fit, or off.
        Kernels are code that the server runs: set off for an image that somebody else built.
    """

    kernels: Literal["use", "require", "off"] = "use"


class CustomServer(_Server):
    """Any server that reads a model from /mnt/models and answers its health path."""


class ServerResources(Section):
    """What one pod asks for.

    gpus: GPUs of one pod; 0 for a server without.
    cpu: Processors that one pod asks for.
    cpu_limit: Processors that it may use; by default as many as it asks for.
    memory: Memory of one pod, request and limit.
    shared_memory: Memory for /dev/shm, which counts as the pod's memory.
    """

    gpus: int = Field(_FIELDS["gpu_count"].default, ge=0, le=16)
    cpu: Processors = _FIELDS["cpu"].default
    cpu_limit: Processors | None = None
    memory: Annotated[str, memory_field("16Gi")] = _FIELDS["memory"].default
    shared_memory: Annotated[str, memory_field("2Gi")] = _FIELDS["shared_memory"].default


class Replicas(Section):
    """How many pods there are, and how they change.

    min: The fewest pods that an autoscaler keeps.
    max: The most pods that an autoscaler makes.
    idle: True for no pods for now.
    rollout: Recreate ends the former pod before the new one starts. auto takes it for a single pod with GPUs.
    canary_traffic_percent: Share of requests for the newest revision, in percent (Knative).
    """

    min: int = Field(1, ge=0, le=1000)
    max: int = Field(1, ge=1, le=1000)
    idle: bool = False
    rollout: Literal["auto", "Recreate", "RollingUpdate"] = "auto"
    canary_traffic_percent: int | None = Field(None, ge=0, le=100)
