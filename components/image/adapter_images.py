"""Adapters that are images of their own (`vllm.loraModules[N].image`): looked at before anything is declared.

They are modelcars that hold an adapter's files in /models, as `modelcar lock` and `push` make them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pulumi

from components.config.checks.adapters import CONFIG, WEIGHTS
from components.config.image_place import ImagePlace
from components.config.problems import NAMESPACE
from components.config.settings import Settings
from components.config.signature import SignatureSettings
from components.config.stack import Stack
from components.image.existing_image import seen
from components.image.verification import once_verified
from modelcar.errors import InputError, Problem

_FIX = (
    "lock the adapter's folder as a model of its own (modelcar lock NAME --folder … --layout any), push it "
    "(modelcar push NAME REPOSITORY --image), and name what that prints"
)


def look(stack: Stack, *, preview: bool) -> tuple[list[Problem], tuple[str, ...]]:
    """Return what is wrong with the adapters' images, and what a reviewer should know of them.

    Args:
        stack: with its models.
        preview: works without the registry too, and says then what was not looked at.
    """
    problems: list[Problem] = []
    doubts: list[str] = []
    for number, settings in enumerate(stack.models):
        at = f"{NAMESPACE}:models[{number}]." if stack.listed else f"{NAMESPACE}:"
        for place, image in settings.adapter_images:
            key = f"{at}vllm.loraModules[{place}].image"
            try:
                found = _look(settings, ImagePlace.of(image), key, preview=preview)
            except InputError as error:
                problems += error.problems
            else:
                doubts += [f"{settings.key}: {found}"] if found else []
    return problems, tuple(doubts)


def _look(settings: Settings, place: ImagePlace, key: str, *, preview: bool) -> str | None:
    """Return what a reviewer should know of an image.

    Raises:
        InputError: it is no adapter's, or an `up` does not get to see it.
    """
    from modelcar.existing_image import pickles  # only a stack that serves such an image needs it

    shown = f"{place.repository}@{place.digest}"
    image = seen(settings, place, preview=preview, key=key, fix=_FIX)
    if isinstance(image, str):
        return f"{image}: not looked at, so that this assumes an adapter in /models"
    if image.files.unread_models:
        return f"{shown} is too large to list its files: whether it holds an adapter is not looked at"
    missing = [] if image.files.find(f"models/{CONFIG}") else [CONFIG]
    if not any(image.files.find(f"models/{name}") for name in WEIGHTS):
        missing.append(WEIGHTS[0])
    if missing:
        found = f"{shown}: has no {' and no '.join(f'/models/{name}' for name in missing)}"
        raise InputError([Problem(key, found, "a modelcar of an adapter, as PEFT saved it", _FIX)])
    told = pickles(image.files)
    return f"{shown}: {told}" if told else None


def once_verified_too(
    images: Sequence[tuple[int, str]],
    uri: pulumi.Output[str],
    signature: SignatureSettings | None,
    project: Path,
    *,
    model: str,
    is_insecure: Callable[[ImagePlace], bool],
) -> pulumi.Output[str]:
    """Return a model's storage URI once the signatures of its adapters' images count as well.

    A preview does not ask.

    Args:
        images: place among the model's adapters, and image.
        uri: known once the model's own image is verified.
        signature: whose counts; None where nobody asks for one.
        project: the folder that files of keys are relative to.
        model: its name, for errors.
        is_insecure: tells whether a registry speaks plain HTTP.

    Raises (inside of the output):
        pulumi.RunError: an adapter's image has none that counts; what others built is not signed here. It has
            all of them.
    """
    places = [ImagePlace.of(image) for _, image in images]
    wanted = [(f"{place.repository}@{place.digest}", is_insecure(place)) for place in places]

    def refused(faults: Mapping[int, str]) -> str:
        lines = [
            f"{model}: vllm.loraModules[{images[at][0]}].image: {wanted[at][0]} is not served: {fault}"
            for at, fault in faults.items()
        ]
        fix = "nothing was deployed. Who trusts an adapter signs it: python -m modelcar sign"
        return "; ".join([*lines, fix])

    return once_verified(uri, wanted, signature, project, refused)
