"""Whether a model fits its settings: what only the model itself tells."""

from __future__ import annotations

import math
from collections.abc import Iterator

from components.config.checks import vllm
from components.config.command_line import said
from components.config.known_model import KnownModel
from components.config.model_spec import ModelSpec
from components.config.problems import problem
from components.config.quantities import quantity
from components.config.vllm_arguments import vllm_arguments
from modelcar.errors import Problem

GIB = 1024**3
#: Of a pod's memory, what its server takes beside the model's files: half, and no more than so many GiB.
OF_SERVER = 8
#: GiB that a server on the CPU needs beside a model's weights.
BESIDE_WEIGHTS = 3


def unfit(settings: ModelSpec, model: KnownModel) -> Iterator[Problem]:
    """Yield what of the settings does not fit the model."""
    yield from _read_ahead(settings, model)
    yield from vllm.unfit(settings, model)


def doubts(settings: ModelSpec, model: KnownModel) -> Iterator[str]:
    """Yield what a reviewer should know of the settings and the model, and what stops nothing."""
    yield from _without_gpu(settings, model)
    yield from vllm.doubts(settings, model)


def _without_gpu(settings: ModelSpec, model: KnownModel) -> Iterator[str]:
    """Yield a model for the CPU that is larger than the pod's memory, where its weights lie then."""
    if settings.gpu_count or settings.runtime != "vllm" or model.size is None:
        return
    size = model.size / GIB * _growth(settings, model)
    if size > quantity(settings.memory) / GIB:
        yield (
            f"memory is {settings.memory}, and without a GPU the model's weights take {size:.1f} GiB of it: "
            "the server would be ended for want of memory (OOMKilled). "
            f"Set memory to {math.ceil(size) + BESIDE_WEIGHTS}Gi"
        )


def _growth(settings: ModelSpec, model: KnownModel) -> int:
    """Return how many times the files' size the weights have in memory: twice where 16 bits become 32."""
    computed = said((*vllm_arguments(settings), *settings.server_args)).get("--dtype")
    stored = model.config.get("dtype", model.config.get("torch_dtype"))
    widened = computed in {"float32", "float"} and stored in {"bfloat16", "float16"}
    return 2 if widened and "quantization_config" not in model.config else 1


def _read_ahead(settings: ModelSpec, model: KnownModel) -> Iterator[Problem]:
    """Yield a model that is larger than what is left of the pod's memory.

    Linux would give up the first files for the last ones, so that all of it was read twice.
    """
    if not settings.read_ahead or model.size is None:
        return
    memory, size = float(quantity(settings.memory) / GIB), model.size / GIB
    if size > memory - min(memory / 2, OF_SERVER):
        least = math.ceil(min(2 * size, size + OF_SERVER))
        yield problem(
            "readAhead",
            f"true, and the model's {size:.1f} GiB leave its server too little of modelcar:memory "
            f"{settings.memory}",
            f"with memory of {least}Gi or more",
            f"set modelcar:memory to {least}Gi, or remove readAhead",
        )
