"""Adapters that are images of their own (`vllm.loraModules[N].image`): looked at before anything is declared.

They are modelcars that hold an adapter's files in /models, as `modelcar lock` and `push` make them.
"""

from __future__ import annotations

from collections.abc import Iterator

from components.config.checks.adapters import CONFIG, WEIGHTS
from components.config.checks.image import PATIENCE
from components.config.image_place import ImagePlace
from components.config.problems import NAMESPACE
from components.config.settings import Settings
from components.config.stack import Stack
from components.image.existing_image import WAIT
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
        for key, place in _images(settings):
            found = _look(settings, place, f"{at}{key}", optional=preview or not settings.check_reachable)
            if isinstance(found, Problem):
                problems.append(found)
            elif found:
                doubts.append(f"{settings.key}: {found}")
    return problems, tuple(doubts)


def _images(settings: Settings) -> Iterator[tuple[str, ImagePlace]]:
    modules = settings.vllm.lora_modules if settings.vllm else ()
    for number, module in enumerate(modules):
        if module.image:
            yield f"vllm.loraModules[{number}].image", ImagePlace.of(module.image)


def _look(settings: Settings, place: ImagePlace, key: str, *, optional: bool) -> Problem | str | None:
    """Return what is wrong with an image, or a doubt; None where it is right."""
    import httpx  # only a stack with such adapters needs it

    from modelcar import existing_image  # as above
    from modelcar.registry import Registry, Target, UnansweredError  # as above

    own = place.host == settings.registry.partition("/")[0]
    target = Target(place.registry, place.name, settings.registry_insecure and own)
    shown = f"{place.repository}@{place.digest}"
    try:
        with Registry(target, timeout=PATIENCE if optional else WAIT) as registry:
            image = existing_image.look(registry, str(place.digest), settings.architecture)
    except existing_image.UnfitError as error:
        fault = error.fault
        return Problem(key, f"{shown}: {fault.found}", fault.allowed, fault.fix)
    except (UnansweredError, httpx.HTTPError) as error:
        why = error.problems[0].value if isinstance(error, InputError) else str(error)
        if optional:
            return f"{shown}: {why}: not looked at, so that this assumes an adapter in /models"
        fix = f"try again; where only the nodes can reach it: {NAMESPACE}:checkReachable false"
        return Problem(key, f"{shown}: {why}", "an image that this machine may look at", fix)
    if image is None:
        return Problem(key, f"{shown}: the registry does not have it", "an image of it", _FIX)
    if image.files.unread_models:
        return f"{shown} is too large to list its files: whether it holds an adapter is not looked at"
    missing = [] if image.files.find(f"models/{CONFIG}") else [CONFIG]
    if not any(image.files.find(f"models/{name}") for name in WEIGHTS):
        missing.append(WEIGHTS[0])
    if missing:
        found = f"{shown}: has no {' and no '.join(f'/models/{name}' for name in missing)}"
        return Problem(key, found, "a modelcar of an adapter, as PEFT saved it", _FIX)
    return None
