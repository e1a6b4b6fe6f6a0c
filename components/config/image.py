"""The part of the settings that says which image is built, of what, and where it is pushed to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from components.config.fields import Endpoint, ImageName, Mirror, ModelName, Registry, StackName, matches
from components.config.image_place import ImagePlace, ImageReference
from components.config.section import Section
from components.config.signature import SignatureSettings
from modelcar.lock import lock_path

BuilderName = Annotated[
    str,
    matches(
        re.compile(r"|[^\s-]\S*"),
        "not a builder's name",
        "a name without spaces that does not begin with -",
        "take it from `docker buildx ls`, or remove it for the default builder",
    ),
]


class ImageSettings(Section):
    """Keys of a stack that are about the image.

    model: that is locked; for an image that is there already, the name of its repository.
    """

    model: ModelName
    image: ImageReference | None = None
    entrypoint_runs_arguments: bool = False
    image_name: ImageName | None = None
    architecture: Literal["amd64", "arm64"] = "amd64"
    hub_endpoint: Endpoint | None = None
    fetch_on: Literal["machine", "builder"] = "machine"
    registry: Registry
    registry_insecure: bool = False
    mirrors: tuple[Mirror, ...] = ()
    mirrors_insecure: bool = False
    promote_from: StackName | None = None
    builder: BuilderName | None = None
    sbom: bool = True
    signature: SignatureSettings | None = None
    check_reachable: bool = True

    @property
    def lock_path(self) -> Path:
        """Where the model's lock is; relative to the project, or absolute."""
        return Path(self.model) if self.model.endswith(".lock") else lock_path(Path(), self.model)

    @property
    def repository(self) -> str:
        """Name of the image's repository below the registry."""
        return self.image_name or self.lock_path.parent.name

    @property
    def place(self) -> ImagePlace:
        """Where the model's image is, and for one that is there which."""
        return ImagePlace.of(self.image) if self.image else ImagePlace(self.registry, self.repository)

    @property
    def insecure_place(self) -> bool:
        """Whether that registry is asked by plain HTTP."""
        return self.is_insecure(self.place)

    def is_insecure(self, place: ImagePlace) -> bool:
        """Tell whether a registry is asked by plain HTTP: the stack says so of its own only."""
        return self.registry_insecure and place.host == self.registry.partition("/")[0]
