"""Where a model's image is: below the stack's registry, or wherever `modelcar:image` says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator

from components import oci
from components.fields import Refused
from modelcar.errors import Problem

if TYPE_CHECKING:
    from components.settings import Settings

_ALLOWED = "HOST[:PORT]/PATH@sha256:<64 hexadecimal digits>"
_REFERENCE = re.compile(
    rf"(?P<path>{oci.REGISTRY.pattern})(?::(?P<tag>[\w][\w.-]{{0,127}}))?(?:@(?P<digest>{oci.DIGEST.pattern}))?"
)
#: Seconds that a registry has to say which digest a tag has; the setting is refused in any case.
PATIENCE = 5.0


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
    host = text.partition("/")[0]
    if not _REFERENCE.fullmatch(text):
        hub = oci.PINNED.fullmatch(text) and "/" not in text.partition("@")[0]
        fix = f"write docker.io/library/{text}" if hub else "copy it as the registry shows it"
        raise Refused("not an image by digest", _ALLOWED, fix)
    if not ({".", ":"} & set(host) or host == "localhost"):
        raise Refused("names no registry", _ALLOWED, f"for Docker Hub write docker.io/{text}")
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


#: `modelcar:image`. That it has a digest is looked at later: what a tag means is asked of the registry.
ImageReference = Annotated[str, BeforeValidator(_reference)]


def check(settings: Settings) -> Problem | None:
    """Return what is wrong with `modelcar:image`, and with settings that do not go with it."""
    from components.checks import problem  # which knows all checks, and so this one

    if settings.image is None:
        if settings.entrypoint_runs_arguments:
            fix = "remove it: images that this program builds have no ENTRYPOINT"
            return problem("entrypointRunsArguments", "true, without modelcar:image", "false", fix)
        return None
    if settings.place.digest is None:
        return _without_digest(settings)
    own = {settings.name, *settings.former_names, type(settings).model_fields["model"].default}
    for key, value, default in (
        ("model", settings.model, settings.model in own),
        ("imageName", settings.image_name, settings.image_name is None),
    ):
        if not default:
            found = f"{value}, beside modelcar:image, which is served as it is"
            return problem(
                key, found, "one of the two", f"remove it, or modelcar:image (model {settings.key})"
            )
    return None


def _without_digest(settings: Settings) -> Problem:
    from components.checks import problem

    place = settings.place
    shown = f"{place.repository}:{place.tag or 'latest'}"
    now = digest_now(place.registry, place.name, place.tag or "latest", settings.insecure_place)
    if now and oci.is_digest(now):
        fix = f"it has this one now: pulumi config set modelcar:image {place.repository}@{now}"
    else:
        why = f" ({now})" if now else ""
        fix = f"take the digest of it{why}: docker buildx imagetools inspect {shown}"
    found = f"{settings.image}: a tag, which somebody else's push can change"
    return problem("image", found, _ALLOWED, fix)


@lru_cache
def digest_now(registry: str, name: str, tag: str, insecure: bool) -> str:
    """Return the digest that a tag has; else why it is not known, or nothing."""
    import httpx  # only somebody who names a tag needs a client of registries

    from modelcar.errors import InputError
    from modelcar.registry import Registry, Target

    try:
        with Registry(Target(registry, name, insecure), timeout=PATIENCE) as client:
            found = client.manifest(tag)
    except InputError as error:
        return error.problems[0].value
    except (httpx.HTTPError, OSError, ValueError) as error:
        return str(error)
    return found.digest if found else "the registry has no such tag"
