"""Where a model's image is: below the stack's registry, or wherever `modelcar:image` says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator

from components.config.fields import PinnedImage, Refused
from modelcar import oci_names

ALLOWED = "HOST[:PORT]/PATH@sha256:<64 hexadecimal digits>"
_REFERENCE = re.compile(
    rf"(?P<path>{oci_names.REGISTRY.pattern})(?::(?P<tag>[\w][\w.-]{{0,127}}))?(?:@(?P<digest>{oci_names.DIGEST.pattern}))?"
)


@dataclass(frozen=True)
class ImagePlace:
    """A repository, and what is named in it. registry: HOST[:PORT][/PATH]. name: below it."""

    registry: str
    name: str
    tag: str | None = None
    digest: str | None = None

    @property
    def repository(self) -> str:
        """REGISTRY/NAME."""
        return f"{self.registry}/{self.name}"

    @property
    def host(self) -> str:
        """HOST[:PORT] of the registry."""
        return self.registry.partition("/")[0]

    @classmethod
    def of(cls, reference: str) -> ImagePlace:
        """Take a reference apart that the setting's type has let pass."""
        found = _REFERENCE.fullmatch(reference)
        if found is None:
            raise ValueError(f"not a reference with a registry's host: {reference!r}")
        registry, _, name = found["path"].rpartition("/")
        return cls(registry, name, found["tag"], found["digest"])


def _reference(value: Any) -> Any:
    text = value.removeprefix("oci://") if isinstance(value, str) else ""
    if not _REFERENCE.fullmatch(text):
        hub = oci_names.PINNED.fullmatch(text) and "/" not in text.partition("@")[0]
        fix = f"write docker.io/library/{text}" if hub else "copy it as the registry shows it"
        raise Refused("not an image by digest", ALLOWED, fix)
    if fault := oci_names.fault_of_host(text):
        raise Refused(fault[0], ALLOWED, fault[1])
    return text


def registry_of(reference: Any, otherwise: str) -> dict[str, str]:
    """Return the setting `registry` that follows from an image; nothing where its registry has no path.

    Args:
        otherwise: stands for it where the image is wrong, which is told then, and not this too.
    """
    try:
        registry = ImagePlace.of(str(reference).removeprefix("oci://")).registry
    except ValueError:
        registry = otherwise
    return {"registry": registry} if "/" in registry else {}


def name_of(reference: Any, otherwise: str) -> str:
    """Return the last part of an image's repository; `otherwise` where the image is wrong."""
    try:
        return ImagePlace.of(str(reference).removeprefix("oci://")).name
    except ValueError:
        return otherwise


#: `modelcar:image`. That it has a digest is looked at later: what a tag means is asked of the registry.
ImageReference = Annotated[str, BeforeValidator(_reference)]
#: An image with its registry's host and its digest.
PinnedReference = Annotated[PinnedImage, BeforeValidator(_reference)]
