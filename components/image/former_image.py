"""`modelcar:rollbackTo`: serve an image that the registry has already, in place of the lock's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pulumi

from components.config.problems import NAMESPACE
from components.config.settings import Settings
from components.engine.options import unknown
from components.image import existing_image
from components.image.existing_image import ExistingImage
from components.image.modelcar_image import ModelcarImage
from components.image.verification import once_verified
from modelcar import oci_names
from modelcar.build_options import image_tag
from modelcar.errors import InputError, refuse
from modelcar.image import LOCK_ANNOTATION

KEY = f"{NAMESPACE}:rollbackTo"


@dataclass(frozen=True)
class Former:
    """digest: of the image. lock_digest: of its lock; empty where it does not say. size_bytes: of weights."""

    digest: str
    lock_digest: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True)
class ServedImage:
    """What is served, and told to others: the lock's image, one that is there, or a former one."""

    digest: pulumi.Output[str]
    storage_uri: pulumi.Output[str]
    reference: pulumi.Output[str]
    lock_digest: pulumi.Output[str]
    size_bytes: pulumi.Output[int]


def find(settings: Settings, *, preview: bool) -> Former | None:
    """Return the image that the stack rolls back to; None where it serves the lock's.

    Args:
        settings: of the stack.
        preview: works without the registry too, which is then not asked.

    Raises:
        InputError: the registry does not have it, or what it has is no modelcar of this program.
    """
    digest = settings.rollback_to
    if digest is None:
        return None
    if settings.image:
        place = replace(settings.place, digest=digest, tag=None)
        found = existing_image.examine(settings, place, preview=preview, key=KEY)
        for doubt in found.doubts:
            pulumi.log.warn(doubt)
        return Former(digest, found.lock_digest, found.size)
    try:
        manifest = _manifest(settings, digest)
    except InputError as error:
        if preview:
            pulumi.log.warn(f"{KEY}: not looked for, so this preview assumes that it is there:\n{error}")
            return Former(digest)
        raise
    if manifest is None:
        raise refuse(
            KEY,
            f"{digest}, and {settings.registry}/{settings.repository} does not have it",
            allowed="the digest of an image in this repository",
            fix="python -m operations revisions --stack … lists those that were served; a cleanup policy may "
            "have removed it: check the former lock out of Git, and run `pulumi up`, which builds it again",
        )
    layers = manifest.get("layers")
    if not layers:
        raise refuse(
            KEY,
            f"{digest}: not the image of one platform",
            allowed="the digest of a modelcar",
            fix="python -m operations revisions --stack … lists those that were served",
        )
    # Some builders write no annotations (docs/builders.md).
    lock_digest = str((manifest.get("annotations") or {}).get(LOCK_ANNOTATION, ""))
    sizes = [int(layer.get("size", 0)) for layer in layers[1:]]  # the first one holds the programs
    return Former(digest, lock_digest, sum(sizes))


def _manifest(settings: Settings, digest: str) -> dict[str, Any] | None:
    # Only a stack that rolls back needs a client of registries.
    import httpx  # as above

    from modelcar.registry import Registry, Target  # as above

    place = f"{settings.registry}/{settings.repository}"
    try:
        with Registry(Target(settings.registry, settings.repository, settings.registry_insecure)) as registry:
            found = registry.manifest(digest)
    except httpx.HTTPError as error:  # of a token's server
        raise refuse(
            KEY, f"{place}: {error}", allowed="a registry that answers", fix="log in, or try again later"
        ) from None
    return found.document if found else None


def served(
    settings: Settings, project: Path, image: ModelcarImage | ExistingImage, former: Former | None
) -> ServedImage:
    """Return what the stack serves.

    Raises (inside of the outputs):
        pulumi.RunError: the former image has no signature that counts; a rollback signs nothing.
    """
    if former is None:
        return ServedImage(
            image.digest, image.storage_uri, image.reference, image.lock_digest, image.size_bytes
        )
    pulumi.log.warn(
        f"{KEY}: {former.digest} is served in place of the lock's image; `make rollback ARGS=--end` ends it"
    )
    registry, name = settings.place.registry, settings.place.name
    digest = once_verified(
        former.digest,
        [(f"{settings.place.repository}@{former.digest}", settings.insecure_place)],
        settings.signature,
        project,
        lambda faults: f"{KEY}: {former.digest} is not rolled back to: {faults[0]}; nothing was deployed",
    )
    return ServedImage(
        digest,
        digest.apply(lambda found: oci_names.storage_uri(registry, name, found)),
        # Nobody here gave a tag to an image that others built.
        pulumi.Output.from_input(
            f"{registry}/{name}" + (f"@{former.digest}" if settings.image else f":{image_tag(former.digest)}")
        ),
        pulumi.Output.from_input(former.lock_digest) if former.lock_digest is not None else unknown(),
        pulumi.Output.from_input(former.size_bytes) if former.size_bytes is not None else image.size_bytes,
    )
