"""The settings of one model and of its stack: every key of `Pulumi.<stack>.yaml` below `modelcar:`.

Each part is a class of its own, so that a function takes the part that it needs. `components.config.loading`
reads and checks them.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ValidationError, model_validator

from components.config.cluster import TargetSettings
from components.config.fields import Label
from components.config.google import GoogleSettings
from components.config.image import ImageSettings
from components.config.image_place import registry_of
from components.config.model_spec import ModelSpec

#: Key of the stack that is not a setting of the program itself.
PLATFORM_FILE = "platformFile"

#: Stand for a required setting that is wrong or missing while the others are checked together.
PLACEHOLDERS = {
    "registry": "placeholder.invalid/models",
    "serverImage": "placeholder@sha256:" + "0" * 64,
}


# The last base's fields come first: pydantic goes through them in Python's order of base classes, reversed.
class Settings(ModelSpec, TargetSettings, ImageSettings):
    """What one stack is told; see `Pulumi.yaml` for the same keys with their defaults.

    name, former_names: the model's place among the stack's (`modelcar:models`); a stack with one model has
        neither.
    import_existing, import_objects: what is there already, made by hand: of the stack, and of a model.
    google: the registry, the cluster and its GPU nodes; a stack without it brings its own.
    """

    name: Label | None = None
    former_names: tuple[Label, ...] = ()
    import_existing: tuple[Literal["Repository", "RepositoryIamMember", "Namespace"], ...] = ()
    import_objects: tuple[Literal["InferenceService", "ServingRuntime", "NetworkPolicy"], ...] = ()
    google: GoogleSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _registry_that_follows(cls, values: Any) -> Any:
        """The stack's own repository is where images go, unless the stack names another registry.

        For an image that is there it need not name any.
        """
        google = values.get("google") if isinstance(values, dict) else None
        if google is None and isinstance(values, dict) and values.get("image"):
            return registry_of(values["image"], PLACEHOLDERS["registry"]) | values
        if isinstance(google, dict) and "registry" not in values:
            try:
                registry = GoogleSettings.model_validate(google, by_name=False).registry
            except ValidationError:
                registry = PLACEHOLDERS["registry"]  # what is wrong with google is told, and not this too
            return {**values, "registry": registry}
        return values

    @property
    def key(self) -> str:
        """What the model's resources are named by in the stack; the first of its names, so that they stay."""
        return self.name or self.service_name

    @property
    def model_name(self) -> str:
        """The name that clients ask the server for."""
        return self.served_model_name or (
            self.place.name if self.image and self.name is None else self.repository
        )

    @property
    def pool_name(self) -> str | None:
        """Pool of GPU nodes that its pods run on, of this stack's own."""
        return self.google.nodes.name if self.google else None

    @property
    def on_this_machine(self) -> bool:
        """Whether this is the embedded platform's stack: its registry speaks plain HTTP."""
        return self.registry_insecure

    @property
    def kernel_mode(self) -> str:
        """What its pods do with compiled kernels in the image.

        Kernels are code that the server runs. Those in an image that this program did not build
        (`modelcar:image`) are anybody's, and count only where the stack says so.
        """
        return "off" if self.image and "kernels" not in self.model_fields_set else self.kernels

    @property
    def own_context(self) -> str | None:
        """The context that `gcloud container clusters get-credentials` makes for the stack's cluster.

        Never whatever cluster kubectl was used with last. None where the stack takes its cluster from
        another stack.
        """
        google = self.google
        if google is None or google.cluster.name is None or google.location is None:
            return None
        return f"gke_{google.project}_{google.location}_{google.cluster.name}"
