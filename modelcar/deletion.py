"""Delete manifests as registries let one: most with their tags, Artifact Registry only after them."""

from __future__ import annotations

from collections.abc import Sequence

from modelcar.registry import Refusal, Registry, Target

#: Artifact Registry's refusals of a manifest that a tag names, and of one that a list names.
_TAGGED, _LISTED = "GOOGLE_MANIFEST_DANGLING_TAG", "GOOGLE_MANIFEST_DANGLING_PARENT_IMAGE"
_GOOGLE = "-docker.pkg.dev"


class KeptError(Exception):
    """The registry keeps a manifest; the message has its words. fix: what to do."""

    def __init__(self, found: str, fix: str) -> None:
        super().__init__(found)
        self.fix = fix


def delete(registry: Registry, digest: str, tags: Sequence[str]) -> None:
    """Delete a manifest with its tags; one that is not there is no error.

    The manifest is tried first, as some registries take a manifest away with any of its tags, and others
    delete no tags. Tags go first where the registry asks for it, each only while it still names the manifest.

    Args:
        registry: opened to delete.
        digest: of the manifest.
        tags: that named it.

    Raises:
        KeptError: the registry refuses.
        httpx.HTTPError: it cannot be reached.
    """
    refusal = registry.delete(digest)
    if refusal and refusal.code == _TAGGED:
        for tag in tags:
            named = registry.manifest(tag)
            if named and named.digest == digest and (refused := registry.delete(tag)):
                raise KeptError(f"tag {tag}: {refused}", _fix(registry.target, refused, tag=True))
        refusal = registry.delete(digest)
    if refusal:
        raise KeptError(str(refusal), _fix(registry.target, refusal))


def _fix(target: Target, refusal: Refusal, *, tag: bool = False) -> str:
    if refusal.status in {401, 403}:
        role = " (roles/artifactregistry.repoAdmin)" if _is_google(target) else ""
        login = f"docker login as somebody who may delete there{role}"
        return f"{login}; or, if its tags are immutable, {_let_tags_go(target)}" if tag else login
    if tag:
        return _let_tags_go(target)
    if refusal.code == _LISTED:
        return (
            "delete the index that names it first, where nothing needs it; an index without tags counts too"
        )
    if refusal.code == _TAGGED:
        return "a tag was given to it meanwhile: run this again, and look at what it names"
    if refusal.status == 405 or refusal.code == "UNSUPPORTED":
        return "let the registry delete (distribution: REGISTRY_STORAGE_DELETE_ENABLED=true)"
    if refusal.status in {409, 412}:
        return "a rule of the registry keeps it (immutable tags, retention): lift it, and run this again"
    return "try again later; if it stays so, delete it by the registry's own means"


def _is_google(target: Target) -> bool:
    return target.host.endswith(_GOOGLE) and target.registry.count("/") >= 2


def _let_tags_go(target: Target) -> str:
    """Return how a repository with immutable tags lets a tagged image go.

    Artifact Registry deletes neither a tag nor an image with one there, by whatever means, and the cleanup
    policies of this program's own repository keep what has a tag
    (https://cloud.google.com/artifact-registry/docs/repositories/update-repo-settings).
    """
    if not _is_google(target):
        return "let the repository's tags go (they may be immutable), and run this again"
    _, project, repository = target.registry.split("/")[:3]
    command = f"gcloud artifacts repositories update {repository} --project={project} "
    command += f"--location={target.host.removesuffix(_GOOGLE)}"
    return (
        f"tags are immutable in this repository, which deletes no image with a tag: {command} "
        f"--no-immutable-tags, run this again, and set it back (--immutable-tags)"
    )
