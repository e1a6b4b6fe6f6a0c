"""Images that a stack serves no longer: they stay in the registry for a while, and this keeps count."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping
from typing import Any

from components.config.stack import Stack
from components.stack import last_run


def removed(
    stack: Stack, former: Mapping[str, Any], today: datetime.date, failed: Collection[str] = ()
) -> dict[str, dict[str, str]]:
    """Return them by REGISTRY/NAME: of models that are gone, and of those that have another repository now.

    Args:
        stack: its settings.
        former: outputs of the last run.
        today: when those go that are gone now.
        failed: models that serve what they served before.
    """
    models = last_run.models(former)
    serving = {_image(model.of_last_run(models))[0] for model in stack.models if model.key in failed}
    used = serving | {model.place.repository for model in stack.models}
    found: dict[str, dict[str, str]] = {
        image: dict(told) for image, told in (former.get("removedModels") or {}).items() if image not in used
    }
    for name, told in models.items():
        image, digest = _image(told)
        built = (told or {}).get("built", True)  # stacks of before built all of theirs
        if digest and built and image not in used:
            found[image] = {"model": name, "since": today.isoformat(), "modelDigest": digest}
    return found


def _image(told: Mapping[str, Any] | None) -> tuple[str, str]:
    """Return repository and digest of what the last run told of a model."""
    image, _, digest = str((told or {}).get("storageUri", "")).removeprefix("oci://").partition("@")
    return image, digest
