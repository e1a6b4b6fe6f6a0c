"""Images of models that a stack no longer has: deleted once they were kept for the time that the stack says.

What any InferenceService or pod of the stack's cluster still names is left alone, and what this program did
not build. Other clusters are not asked, so nothing is deleted unless told to (`--delete`).
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from components.cluster.access import Cluster
from components.config.problems import NAMESPACE
from components.config.stack import Stack
from modelcar.errors import refuse
from modelcar.existing_image import CONFIG_TYPES
from modelcar.image import LOCK_ANNOTATION
from modelcar.registry import Manifest, Registry, Target

_KSERVE = "/apis/serving.kserve.io/v1beta1"
#: What may name an image.
_USERS = (f"{_KSERVE}/inferenceservices", "/api/v1/pods")


@dataclass(frozen=True)
class Pruned:
    """One image. what: kept, served, gone, to delete, or deleted. why: for people."""

    image: str
    digest: str
    what: str
    why: str


def prune(
    cluster: Cluster, stack: Stack, outputs: Mapping[str, Any], today: datetime.date, *, delete: bool
) -> list[Pruned]:
    """Return what becomes of each image of a removed model.

    Args:
        cluster: of the stack; asked what is still served.
        stack: its settings.
        outputs: of the stack.
        today: to count from.
        delete: do it; otherwise only look.

    Raises:
        InputError: the registry refuses, or the cluster is another one than the stack's.
        ClusterError: the API server went away, or rights are missing.
    """
    told = outputs.get("removedModels") or {}
    if told:
        _require_own(cluster, outputs)
    users = json.dumps([cluster.get(path) for path in _USERS]) if told else ""
    found: list[Pruned] = []
    for image, row in sorted(told.items()):
        left = stack.keep_removed_days - (today - datetime.date.fromisoformat(row["since"])).days
        if left > 0:
            why = f"{row['model']} was removed on {row['since']}: kept for {left} more days"
            found.append(Pruned(image, row["modelDigest"], "kept", why))
        else:
            found += _repository(stack, image, users, delete=delete)
    return found


def _require_own(cluster: Cluster, outputs: Mapping[str, Any]) -> None:
    """Refuse a cluster that has nothing of what the stack serves: nobody there would name its images."""
    models = [(model["namespace"], model["serviceName"]) for model in (outputs.get("models") or {}).values()]
    paths = [f"{_KSERVE}/namespaces/{space}/inferenceservices/{name}" for space, name in models]
    if paths and not any(cluster.get(path) for path in paths):
        shown = ", ".join(f"{space}/{name}" for space, name in models)
        raise refuse(
            "the stack's cluster",
            f"{cluster.name} has none of the stack's InferenceServices ({shown}), so it cannot tell which "
            "images are still served",
            allowed="the cluster that the stack deploys to",
            fix=f"choose its context (`kubectl config use-context …`, or {NAMESPACE}:kubeContext); where the "
            "services were deleted by hand, `pulumi up --refresh` makes them again",
        )


def _repository(stack: Stack, image: str, users: str, *, delete: bool) -> list[Pruned]:
    for model in stack.models:
        if model.place.repository == image:
            return [Pruned(image, "", "kept", f"{model.key} is served from it")]
    shared, name = stack.shared, image.removeprefix(f"{stack.shared.registry}/")
    if name == image:
        raise refuse(
            image,
            f"in another registry than the stack's ({shared.registry})",
            allowed="images of the stack's own registry",
            fix="delete it there, where somebody knows what it is",
        )
    target = Target(shared.registry, name, shared.registry_insecure)
    with Registry(target, write=True, delete=delete) as registry:
        tagged = registry.tagged()
        if not tagged:
            return [Pruned(image, "", "gone", "the registry has none of it")]
        found = []
        own = {digest for digest, (manifest, _) in tagged.items() if _is_own(registry, manifest)}
        for digest, (_, tags) in tagged.items():
            if digest not in own and not _belongs(tags, own):
                found.append(Pruned(image, digest, "kept", "not built by this program: delete it yourself"))
            elif digest in users:
                found.append(Pruned(image, digest, "served", "a pod or an InferenceService names it"))
            elif not delete:
                found.append(Pruned(image, digest, "to delete", "with --delete"))
            else:
                registry.delete(digest)
                found.append(Pruned(image, digest, "deleted", "its blobs go when the registry collects them"))
        return found


def _is_own(registry: Registry, manifest: Manifest) -> bool:
    """Tell whether this program built an image: its lock's digest is among the annotations, or the labels."""
    document = manifest.document
    if LOCK_ANNOTATION in (document.get("annotations") or {}):
        return True
    described = document.get("config") or {}
    if described.get("mediaType") not in CONFIG_TYPES:
        return False
    config = json.loads(registry.blob(str(described["digest"])))
    return LOCK_ANNOTATION in ((config.get("config") or {}).get("Labels") or {})


def _belongs(tags: Sequence[str], own: Collection[str]) -> bool:
    """Tell whether tags say that something is attached to one of these: `sha256-…`, `sha256-….sig`."""
    return any(tag.partition(".")[0].replace("-", ":", 1) in own for tag in tags)


def table(found: Sequence[Pruned]) -> list[str]:
    """Return the images for people."""
    if not found:
        return ["no model was removed from this stack"]
    return [f"{one.what:>9}  {one.image}{'@' if one.digest else ''}{one.digest}: {one.why}" for one in found]


def document(found: Sequence[Pruned]) -> dict[str, Any]:
    """Return the images for programs."""
    return {"images": [asdict(one) for one in found]}
