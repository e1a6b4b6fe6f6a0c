"""How large the model is, for disks and for previews on machines that do not have its weights."""

from __future__ import annotations

from pathlib import Path

import pulumi

from components.checks import problem
from components.google import disk
from components.google.checks import small_disk
from components.settings import Settings
from modelcar.errors import InputError
from modelcar.weights import read_weights

#: Tokenizers and configuration come on top of what a model is said to weigh.
TOLERANCE = 1.05


def model_bytes(settings: Settings, project: Path) -> int:
    """Return the size of the weights in bytes: as they lie on disk, or as the setting says in a preview.

    Raises:
        InputError: the weights are unfit or missing, larger than the setting says, or too large for the disk
            of the GPU nodes.
    """
    folder = project / settings.weights
    said = settings.model_bytes
    if said and pulumi.runtime.is_dry_run() and not folder.exists():
        return said
    size = read_weights(folder).total_size
    problems = []
    if said and size > said * TOLERANCE:
        value = f"{settings.model_size}, and {settings.weights} has {size / 2**30:.2f} GiB"
        problems.append(problem("modelSize", value, "at least the weights' size", "correct it, or remove it"))
    if settings.google:
        problems += small_disk(settings.google, disk.need(size))
    if problems:
        raise InputError(problems)
    return size
