"""The part of the settings that says what runs in a pod: the model server, what it asks for, how it ends."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from components.config.fields import (
    MAY_HOLD_SECRETS,
    HttpPath,
    Label,
    PinnedImage,
    Processors,
    RuntimeName,
    memory_field,
)
from components.config.gpus import GPUS
from components.config.probes import ProbesSettings
from components.config.scheduling import SchedulingSettings
from components.config.section import Section
from components.config.termination import TerminationSettings
from components.config.vllm import VllmSettings

#: Set by the program on the server; a stack that could unset them could reach a model hub at run time.
#: The last two are how a pod knows which compiled kernels fit it (`components/manifests/kernels.py`).
RESERVED_ENV = frozenset(
    {
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "HOME",
        "STORAGE_URI",
        "MODELCAR_KERNELS",
        "MODELCAR_SERVER_ID",
    }
)

#: Name the server's user, which its image does not. A stack may name another one, as stacks did before the
#: program named any; without a name torch cannot be imported.
USER_VARIABLES = frozenset({"LOGNAME", "USER"})


class ServerSettings(Section):
    """Keys of a stack that are about the model server and its container."""

    runtime: Literal["vllm", "custom"] = "vllm"
    vllm: VllmSettings | None = None
    kernels: Literal["use", "require", "off"] = "use"
    read_ahead: bool = False
    shared_runtime: RuntimeName | None = None
    server_image: PinnedImage
    server_command: Annotated[tuple[str, ...], MAY_HOLD_SECRETS] = Field(
        ("python3", "-m", "vllm.entrypoints.openai.api_server"), min_length=1
    )
    server_args: Annotated[tuple[str, ...], MAY_HOLD_SECRETS] = ()
    server_env: Annotated[tuple[str, ...], MAY_HOLD_SECRETS] = ()
    server_host_paths: tuple[str, ...] = ()
    server_writable_paths: tuple[str, ...] = ()
    server_port: int = Field(8080, ge=1024, le=65535)
    health_path: HttpPath = "/health"
    gpu: Literal[GPUS] | None = None  # type: ignore[valid-type]
    node_pool: Label | None = None
    cpu: Processors = "4"
    cpu_limit: Processors | None = None
    memory: Annotated[str, memory_field("16Gi")] = "16Gi"
    shared_memory: Annotated[str, memory_field("2Gi")] = "2Gi"
    gpu_count: int = Field(1, ge=0, le=16)


class PodSettings(Section):
    """Keys of a stack that are about pods: where they run, how they are asked, and how they end."""

    scheduling: SchedulingSettings = Field(default_factory=SchedulingSettings)
    probes: ProbesSettings = Field(default_factory=ProbesSettings)
    termination: TerminationSettings = Field(default_factory=TerminationSettings)
