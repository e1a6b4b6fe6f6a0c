"""Whether a model fits its settings: what only the model itself tells."""

from __future__ import annotations

import math
from collections.abc import Iterator

from components.config.checks import vllm
from components.config.known_model import KnownModel
from components.config.model_spec import ModelSpec
from components.config.problems import problem
from components.config.quantities import quantity
from modelcar.errors import Problem

GIB = 1024**3
#: Of a pod's memory, what its server takes beside the model's files: half, and no more than so many GiB.
OF_SERVER = 8


def unfit(settings: ModelSpec, model: KnownModel) -> Iterator[Problem]:
    """Yield what of the settings does not fit the model."""
    yield from _read_ahead(settings, model)
    yield from vllm.unfit(settings, model)


def _read_ahead(settings: ModelSpec, model: KnownModel) -> Iterator[Problem]:
    """Yield a model that is larger than what is left of the pod's memory.

    Linux would give up the first files for the last ones, so that all of it was read twice.
    """
    if not settings.read_ahead or model.size is None:
        return
    memory, size = quantity(settings.memory) / GIB, model.size / GIB
    if size > memory - min(memory / 2, OF_SERVER):
        least = math.ceil(min(2 * size, size + OF_SERVER))
        yield problem(
            "readAhead",
            f"true, and the model's {size:.1f} GiB leave its server too little of modelcar:memory "
            f"{settings.memory}",
            f"with memory of {least}Gi or more",
            f"set modelcar:memory to {least}Gi, or remove readAhead",
        )
