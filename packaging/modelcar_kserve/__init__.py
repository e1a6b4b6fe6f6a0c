"""Big models to KServe as digest-pinned OCI images (modelcars): components for any Pulumi program.

For example:

    values = {"model": "chat", "namespace": "models", "registry": "…", "serverImage": "…@sha256:…"}
    settings = load_model(values)
    served = serve("chat", settings, Place(options))
    pulumi.export("digest", served.outputs["modelDigest"])
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi

from modelcar_kserve.components.config import loading as _settings
from modelcar_kserve.components.config.google import GoogleSettings
from modelcar_kserve.components.config.kserve import KServeSettings
from modelcar_kserve.components.config.network import EgressSettings, IngressSettings
from modelcar_kserve.components.config.problems import problem
from modelcar_kserve.components.config.settings import Settings
from modelcar_kserve.components.google.cloud import GoogleCloud
from modelcar_kserve.components.image import existing_image as _existing_image
from modelcar_kserve.components.image.existing_image import ExistingImage, ExistingImageArgs
from modelcar_kserve.components.image.model_lock import model_doubts, model_lock
from modelcar_kserve.components.image.modelcar_image import ModelcarImage, ModelcarImageArgs
from modelcar_kserve.components.kserve.egress import EgressPolicy, EgressPolicyArgs
from modelcar_kserve.components.kserve.ingress import IngressPolicy, IngressPolicyArgs
from modelcar_kserve.components.kserve.kserve_platform import KServePlatform, KServePlatformArgs
from modelcar_kserve.components.kserve.model_service import ModelService, ModelServiceArgs
from modelcar_kserve.components.stack.delivery import Place
from modelcar_kserve.components.stack.model import Model, ModelArgs
from modelcar_kserve.components.stack.output_schema import ModelOutputs, StackOutputs
from modelcar_kserve.components.stack.stack_reader import read_stack
from modelcar_kserve.modelcar.base import read_base
from modelcar_kserve.modelcar.errors import InputError
from modelcar_kserve.modelcar.lock import Lock
from modelcar_kserve.modelcar.lock_reader import read_lock

__all__ = [
    "EgressPolicy",
    "EgressPolicyArgs",
    "EgressSettings",
    "ExistingImage",
    "ExistingImageArgs",
    "GoogleCloud",
    "GoogleSettings",
    "IngressPolicy",
    "IngressPolicyArgs",
    "IngressSettings",
    "InputError",
    "KServePlatform",
    "KServePlatformArgs",
    "KServeSettings",
    "Lock",
    "Model",
    "ModelArgs",
    "ModelOutputs",
    "ModelService",
    "ModelServiceArgs",
    "ModelcarImage",
    "ModelcarImageArgs",
    "Place",
    "Settings",
    "StackOutputs",
    "load_model",
    "read_base",
    "read_lock",
    "read_stack",
    "serve",
]


def load_model(values: Mapping[str, Any], project: Path | None = None) -> Settings:
    """Check a model's settings (the keys of docs/reference/settings.md) and return them.

    Args:
        values: by their names in a stack's file, without the namespace.
        project: the program's folder, which paths are relative to; the current one where None.

    Raises:
        InputError: with every problem, each with key, value, what is allowed and the fix.
    """
    problems = []
    if "promoteFrom" in values:
        allowed = "mirrors, in a program of your own"
        fix = "list the repositories there: read_stack tells them, in each model's storage_uri"
        problems.append(problem("promoteFrom", values["promoteFrom"], allowed, fix))
    return _settings.checked(dict(values), project or Path.cwd(), problems)


def serve(
    name: str,
    settings: Settings,
    place: Place | None = None,
    opts: pulumi.ResourceOptions | None = None,
    *,
    project: Path | None = None,
) -> Model:
    """Build, push and serve one model; or serve an image that is there (`image` among its settings).

    Args:
        name: of its resources.
        settings: the model's; its lock is read, and is what is delivered, unless they name an image.
        place: where it is served; None for the image alone.
        opts: of the component.
        project: the program's folder, with `modelcar/models/NAME/model.lock`; the current one where None.

    Raises:
        InputError: the lock is missing or wrong, or no pod could be served by the image.
    """
    folder = project or Path.cwd()
    lock = None if settings.image else model_lock(settings, folder)
    for doubt in model_doubts(settings, lock, folder):
        pulumi.log.warn(doubt)
    existing = _existing_image.find(settings, preview=pulumi.runtime.is_dry_run())
    for doubt in existing.doubts if existing else ():
        pulumi.log.warn(doubt)
    base = read_base(settings.architecture)
    arguments = ModelArgs(settings, lock, base, folder, place=place, existing=existing)
    return Model(name, arguments, opts)
