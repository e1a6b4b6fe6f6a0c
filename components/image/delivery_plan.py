"""What is known of one image before its layers are brought to the registry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modelcar.base import Base
from modelcar.lock import Lock
from modelcar.manifest import Image


@dataclass(frozen=True)
class Delivery:
    """What comes before and after the build.

    layout: folder below the project. fetching_builder: name of the builder where that downloads the weights.
    mirrors, mirrors_insecure: as ModelcarImageArgs has them.
    builder: name of the builder; None for the one that the provider chooses.
    """

    image: Image
    lock: Lock
    base: Base
    layout: Path
    project: Path
    registry: str
    name: str
    insecure: bool = False
    hub_endpoint: str | None = None
    fetching_builder: str | None = None
    mirrors: tuple[str, ...] = ()
    mirrors_insecure: bool = False
    builder: str | None = None
