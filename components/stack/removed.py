"""Models that a stack no longer has: their images stay in the registry for a while, and this keeps count."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from components.config.stack import Stack


def removed(stack: Stack, former: Mapping[str, Any], today: datetime.date) -> dict[str, dict[str, str]]:
    """Return the images of models that are gone, by REGISTRY/NAME.

    Args:
        stack: its settings.
        former: outputs of the last run.
        today: when those go that are gone now.
    """
    known = {name for model in stack.models for name in (model.key, *model.former_names)}
    used = {model.place.repository for model in stack.models}
    found: dict[str, dict[str, str]] = {
        image: dict(told) for image, told in (former.get("removedModels") or {}).items() if image not in used
    }
    for name, told in (former.get("models") or {}).items():
        image, _, digest = str((told or {}).get("storageUri", "")).removeprefix("oci://").partition("@")
        built = (told or {}).get("built", True)  # stacks of before built all of theirs
        if name not in known and digest and built and image not in used:
            found[image] = {"model": name, "since": today.isoformat(), "modelDigest": digest}
    return found
