"""What of a removed model's repository can go, what stays and why, and what has to go before what."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from modelcar.existing_image import CONFIG_TYPES
from modelcar.image import LOCK_ANNOTATION
from modelcar.kernel_store import ARTIFACT_TYPE, layers_of
from modelcar.registry import Manifest, Registry

#: Tags of what is attached to an image: its list of referrers, and cosign 2's `.sig`, `.att`, `.sbom`.
_ATTACHED = re.compile(r"sha256-(?P<digest>[0-9a-f]{64})(?:\.[a-z]+)?")


@dataclass
class Part:
    """A manifest of a repository.

    subjects: digests of what it is attached to; none where it stands for itself.
    kept: why it stays; empty: it can go. after: digests that have to be gone first.
    """

    digest: str
    tags: Sequence[str]
    manifest: Manifest
    subjects: frozenset[str] = frozenset()
    kept: str = ""
    served: bool = False
    after: set[str] = field(default_factory=set)

    @property
    def listed(self) -> list[str]:
        """Digests of the manifests that it lists; none where it is no index."""
        entries = self.manifest.document.get("manifests") or []
        return [str(entry.get("digest")) for entry in entries if isinstance(entry, dict)]

    @property
    def layers(self) -> set[str]:
        """Digests of its layers."""
        return set(layers_of(self.manifest))

    @property
    def is_kernels(self) -> bool:
        """Whether all it does is to keep a layer of kernels."""
        return bool(self.manifest.document.get("artifactType") == ARTIFACT_TYPE)


def plan(
    registry: Registry, tagged: Mapping[str, tuple[Manifest, Sequence[str]]], users: str
) -> dict[str, Part]:
    """Return every manifest that the repository's tags lead to, with what becomes of it.

    Args:
        registry: the repository.
        tagged: what its tags name.
        users: text of all objects that may name an image. Whatever it has the digest or a tag of is served.

    Raises:
        httpx.HTTPError: the registry does not answer.
        InputError: it sends something else than what was asked for.
    """
    parts = {
        digest: Part(digest, tags, manifest, _subjects(tags)) for digest, (manifest, tags) in tagged.items()
    }
    for part in parts.values():
        if _is_served(part, registry.target.repository, users):
            part.served, part.kept = True, "a pod or an InferenceService names it"
        elif not part.subjects and not _is_own(registry, part):
            part.kept = "not built by this program: delete it yourself"
    untagged = {subject for part in parts.values() for subject in part.subjects if subject not in parts}
    there = {digest for digest in untagged if digest in users or registry.manifest(digest)}
    _keep_what_others_need(parts, frozenset())
    # What is attached to an image that is gone already is left of a run that was refused.
    going = [part.digest for part in parts.values() if not part.kept and not part.subjects]
    _add_referrers(registry, parts, [*going, *sorted(untagged - there)], users)
    _keep_what_others_need(parts, there - parts.keys())
    for part in parts.values():
        part.after = {subject for subject in part.subjects if subject in parts}
        for listed in part.listed:
            child = parts.get(listed)
            # The list of an image's attachments goes after the image, and before them.
            if child and not part.kept and part.digest not in child.subjects and listed not in part.subjects:
                child.after.add(part.digest)
    return parts


def in_order(parts: Mapping[str, Part]) -> Iterator[Part]:
    """Yield what can go, each after what has to be gone first; what goes round in a ring comes last."""
    left = {digest: part for digest, part in parts.items() if not part.kept}
    while left:
        ready = [part for part in left.values() if not part.after & left.keys()] or list(left.values())
        for part in ready:
            del left[part.digest]
            yield part


def _subjects(tags: Sequence[str]) -> frozenset[str]:
    """Return what a manifest is attached to, by its tags; none where one of them says something else."""
    found = [_ATTACHED.fullmatch(tag) for tag in tags]
    return frozenset(f"sha256:{match['digest']}" for match in found if match) if all(found) else frozenset()


def _subject(manifest: Manifest) -> str | None:
    found: str | None = (manifest.document.get("subject") or {}).get("digest")
    return found


def _is_served(part: Part, repository: str, users: str) -> bool:
    names = [f"{repository}:{tag}" for tag in part.tags]
    if "latest" in part.tags:  # a name without a tag
        names.append(f'{repository}"')
    return part.digest in users or any(name in users for name in names)


def _is_own(registry: Registry, part: Part) -> bool:
    """Tell whether this program made it: an image with its lock's digest, or a layer of kernels."""
    document = part.manifest.document
    if part.is_kernels or LOCK_ANNOTATION in (document.get("annotations") or {}):
        return True
    described = document.get("config") or {}
    if described.get("mediaType") not in CONFIG_TYPES:
        return False
    try:
        config = json.loads(registry.blob(str(described["digest"])))
        return LOCK_ANNOTATION in ((config.get("config") or {}).get("Labels") or {})
    except (ValueError, RecursionError, AttributeError, TypeError):
        return False  # nothing that this program made


def _keep_what_others_need(parts: Mapping[str, Part], untagged: Collection[str]) -> None:
    """Keep what something that stays needs; again, as more stays then.

    untagged: digests of what is there though no tag leads to it.
    """
    kept = -1
    while kept != (kept := sum(bool(part.kept) for part in parts.values())):
        stays = {*untagged, *(digest for digest, part in parts.items() if part.kept)}
        listed = {digest: one for one in stays if one in parts for digest in parts[one].listed}
        layers = {layer: one for one in stays if one in parts for layer in parts[one].layers}
        for part in parts.values():
            if part.kept:
                continue
            if part.digest in listed:  # a pod may name the index alone
                part.kept = f"listed by {listed[part.digest]}, which stays"
            elif subjects := sorted(part.subjects & stays):
                part.kept = f"attached to {subjects[0]}, which stays"
            elif part.is_kernels and (used := part.layers & layers.keys()):
                # They cannot be made again from a lock.
                part.kept = f"kernels of {layers[min(used)]}, which stays"


def _add_referrers(registry: Registry, parts: dict[str, Part], subjects: Collection[str], users: str) -> None:
    """Add what refers to these digests, and has no tag: signatures, bills of materials, and theirs."""
    left = list(subjects)
    while left:
        subject = left.pop()
        for entry in registry.referrers(subject):
            digest = str(entry.get("digest"))
            manifest = None if digest in parts else registry.manifest(digest)
            if manifest is None or _subject(manifest) != subject:
                continue  # whoever wrote the list may have been wrong
            part = parts[digest] = Part(digest, (), manifest, frozenset([subject]))
            if digest in users:
                part.served, part.kept = True, "a pod or an InferenceService names it"
            left.append(digest)
