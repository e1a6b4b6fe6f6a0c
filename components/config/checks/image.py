"""The image: where it is, by which digest, and who fetches its layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from components.config.image_place import ALLOWED
from components.config.problems import NAMESPACE, problem
from components.config.settings import Settings
from modelcar import oci_names
from modelcar.errors import InputError, Problem

#: Seconds that a registry has to say which digest a tag has; the setting is refused in any case.
PATIENCE = 5.0


def check(settings: Settings) -> Problem | None:
    """Return what is wrong with `modelcar:image`, and with settings that do not go with it."""
    if settings.image is None:
        if settings.entrypoint_runs_arguments:
            fix = "remove it: images that this program builds have no ENTRYPOINT"
            return problem("entrypointRunsArguments", "true, without modelcar:image", "false", fix)
        return None
    if settings.place.digest is None:
        return _without_digest(settings)
    own = {settings.name, *settings.former_names, settings.place.name}
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
    place = settings.place
    shown = f"{place.repository}:{place.tag or 'latest'}"
    now = digest_now(place.registry, place.name, place.tag or "latest", settings.insecure_place)
    if now and oci_names.is_digest(now):
        fix = f"it has this one now: pulumi config set modelcar:image {place.repository}@{now}"
    else:
        why = f" ({now})" if now else ""
        fix = f"take the digest of it{why}: docker buildx imagetools inspect {shown}"
    found = f"{settings.image}: a tag, which somebody else's push can change"
    return problem("image", found, ALLOWED, fix)


@lru_cache
def digest_now(registry: str, name: str, tag: str, insecure: bool) -> str:
    """Return the digest that a tag has; else why it is not known, or nothing."""
    import httpx  # only somebody who names a tag needs a client of registries

    from modelcar.registry import Registry, Target  # as above

    try:
        with Registry(Target(registry, name, insecure), timeout=PATIENCE) as client:
            found = client.manifest(tag)
    except InputError as error:
        return error.problems[0].value
    except (httpx.HTTPError, OSError, ValueError) as error:
        return str(error)
    return found.digest if found else "the registry has no such tag"


def _repository(settings: Settings) -> Problem | None:
    if settings.image:
        return None
    if not oci_names.NAME.fullmatch(settings.repository):
        value = f"not set, and the lock's folder gives no repository name: {settings.repository!r}"
        allowed = "lower-case letters and digits, with single . _ or - between them"
        return problem("imageName", value, allowed, "set imageName, or rename the folder of model.lock")
    # A registry counts everything below its host.
    path = f"{settings.registry.partition('/')[2]}/{settings.repository}"
    if len(path) <= oci_names.LONGEST_NAME:
        return None
    value = f"{settings.repository[:40]}… gives a repository name of {len(path)} characters"
    return problem(
        "imageName", value, f"{oci_names.LONGEST_NAME} characters with the registry's path", "shorten it"
    )


def fetching(fetch_on: str, builder: str | None) -> Problem | None:
    """Return the problem of a builder that is to fetch the layers, and has no name."""
    if fetch_on == "builder" and not builder:
        value = "builder, and no builder is named: the default builder is on this machine"
        fix = f"pulumi config set {NAMESPACE}:builder NAME (docker buildx ls)"
        return problem("fetchOn", value, "builder together with builder's name, or machine", fix)
    return None


def _fetch_on(settings: Settings) -> Problem | None:
    return fetching(settings.fetch_on, settings.builder)


def foreign_mirrors(
    registry: str, mirrors: Sequence[str], fetch_on: str, key: str = "mirrors"
) -> Problem | None:
    """Return the problem of a mirror whose layers would pass this machine, where the builder fetches.

    Args:
        registry: that the image is pushed to.
        mirrors: of its layers. fetch_on: what downloads them.
        key: that names the mirrors.
    """
    host = registry.partition("/")[0]
    others = [name for name in mirrors if name.partition("/")[0] != host]
    if fetch_on != "builder" or not others:
        return None
    value = f"{others[0]}, beside fetchOn builder: a copy from another registry passes this machine"
    allowed = f"repositories of {host}, which it mounts without a copy; or fetchOn machine"
    fix = f"pulumi config rm {NAMESPACE}:fetchOn, or take the mirror out: the builder fetches from the hub"
    return problem(key, value, allowed, fix)


def mirrors_beside_builder(settings: Settings, key: str = "mirrors") -> Problem | None:
    """Return the same problem of a model's settings; key: that names the mirrors."""
    return foreign_mirrors(settings.registry, settings.mirrors, settings.fetch_on, key)


#: All of them.
CHECKS: tuple[Callable[[Settings], Problem | None], ...] = (
    check,
    _repository,
    _fetch_on,
    mirrors_beside_builder,
)
