"""The settings of one model and of its stack: every key of `Pulumi.<stack>.yaml` below `modelcar:`.

Each part is a class of its own, so that a function takes the part that it needs. `components.config.loading`
reads and checks them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError, model_validator

from components.config.cluster import TargetSettings
from components.config.fields import SERVICE, Label, ModelKey, is_model
from components.config.google import GoogleSettings
from components.config.image import ImageSettings
from components.config.image_place import name_of, registry_of
from components.config.model_spec import ModelSpec
from components.config.referenced_cluster import unknown

#: Key of the stack that is not a setting of the program itself.
PLATFORM_FILE = "platformFile"

#: Stand for a required setting that is wrong or missing while the others are checked together.
PLACEHOLDERS = {
    "model": "model",
    "namespace": "namespace",
    "registry": "placeholder.invalid/models",
    "serverImage": "placeholder@sha256:" + "0" * 64,
    "serviceName": "service",
}


# The last base's fields come first: pydantic goes through them in Python's order of base classes, reversed.
class Settings(ModelSpec, TargetSettings, ImageSettings):
    """What one stack is told; see `Pulumi.yaml` for the same keys with their defaults.

    namespace: of the InferenceService.
    name, former_names: the model's place among the stack's (`modelcar:models`); a stack with one model has
        neither.
    import_existing, import_objects: what is there already, made by hand: of the stack, and of a model.
    google: the registry, the cluster and its GPU nodes; a stack without it brings its own.
    """

    namespace: Label
    name: ModelKey | None = None
    former_names: tuple[ModelKey, ...] = ()
    import_existing: tuple[
        Literal["Repository", "RepositoryIamMember", "Namespace", "KServeNamespaces"], ...
    ] = ()
    import_objects: tuple[Literal["InferenceService", "ServingRuntime", "NetworkPolicy"], ...] = ()
    google: GoogleSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _what_follows(cls, values: Any) -> Any:
        """Fill in what the stack does not say and other settings do; what it says counts."""
        return _with_what_follows(values) if isinstance(values, dict) else values

    @property
    def key(self) -> str:
        """What the model's resources are named by in the stack; the first of its names, so that they stay."""
        return self.name or self.service_name

    def of_last_run(self, models: Mapping[str, Any]) -> Any:
        """Return what the last run told of the model, by its name or the newest that it had; None: nothing.

        Args:
            models: what it told of each, by its key then.
        """
        names = (self.key, *reversed(self.former_names))
        return next((models[name] for name in names if models.get(name)), None)

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
    def kernel_mode(self) -> str:
        """What its pods do with compiled kernels in the image.

        Kernels are code that the server runs. Those in an image that this program did not build
        (`modelcar:image`) are anybody's, and count only where the stack says so. So the key has no default in
        `Pulumi.yaml`: Pulumi hands a default over as if the stack had said it.
        """
        return "off" if self.image and "kernels" not in self.model_fields_set else self.kernels

    @property
    def own_context(self) -> str | None:
        """The context that `gcloud container clusters get-credentials` makes for the stack's cluster.

        Never whatever cluster kubectl was used with last. None for a stack without `modelcar:google`.

        Raises:
            InputError: another stack names the cluster, and its outputs were not read.
        """
        google = self.google
        if google is None:
            return None
        if google.cluster.name is None or google.location is None:
            raise unknown(google, "its outputs were not read")
        return f"gke_{google.project}_{google.location}_{google.cluster.name}"


def service_name_of(values: Mapping[str, Any]) -> str | None:
    """Return what the service of a stack with one model is called, by settings that nobody has checked yet.

    None where they do not say.
    """
    found: str | None = _with_what_follows(values).get("serviceName")
    return None if found == PLACEHOLDERS["serviceName"] else found


def _with_what_follows(values: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(values)
    for follows in (_registry, _model, _service_name):
        found = {**follows(found), **found}
    return found


def _registry(values: Mapping[str, Any]) -> dict[str, str]:
    """Images go to the stack's own repository; for an image that is there nothing need be said."""
    google = values.get("google")
    if google is None and values.get("image"):
        return registry_of(values["image"], PLACEHOLDERS["registry"])
    if not isinstance(google, dict):
        return {}
    try:
        return {"registry": GoogleSettings.model_validate(google, by_name=False).registry}
    except ValidationError:
        return {"registry": PLACEHOLDERS["registry"]}  # what is wrong with google is told, and not this too


def _model(values: Mapping[str, Any]) -> dict[str, str]:
    """An image that is there is called as its repository."""
    return {"model": name_of(values["image"], PLACEHOLDERS["model"])} if values.get("image") else {}


def _service_name(values: Mapping[str, Any]) -> dict[str, str]:
    """A service is called as its image's repository, as far as KServe takes that; else it has to be said."""
    name: Any = values.get("imageName") or values.get("model")
    if not is_model(name):
        # What is wrong with the name is told, and not this too.
        return {"serviceName": PLACEHOLDERS["serviceName"]}
    folder = Path(name).parent.name if name.endswith(".lock") else name
    made = re.sub(r"[^-a-z0-9]", "-", folder.lower())
    return {"serviceName": made} if SERVICE.fullmatch(made) else {}
