"""Images of models that a stack no longer has: deleted once they were kept for the time that the stack says.

What any InferenceService or pod of the stack's cluster still names is left alone. Other clusters are not
asked, so nothing is deleted unless told to (`--delete`).
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from components.models import Stack
from modelcar.errors import refuse
from modelcar.registry import Registry, Target
from operations.cluster import Cluster

#: What may name an image.
_USERS = ("/apis/serving.kserve.io/v1beta1/inferenceservices", "/api/v1/pods")


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
        InputError: the registry refuses.
        ClusterError: the API server went away, or rights are missing.
    """
    told = outputs.get("removedModels") or {}
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


def _repository(stack: Stack, image: str, users: str, *, delete: bool) -> list[Pruned]:
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
        digests = registry.digests()
        if not digests:
            return [Pruned(image, "", "gone", "the registry has none of it")]
        found = []
        for digest in digests:
            if digest in users:
                found.append(Pruned(image, digest, "served", "a pod or an InferenceService names it"))
            elif not delete:
                found.append(Pruned(image, digest, "to delete", "with --delete"))
            else:
                registry.delete(digest)
                found.append(Pruned(image, digest, "deleted", "its blobs go when the registry collects them"))
        return found


def table(found: Sequence[Pruned]) -> list[str]:
    """Return the images for people."""
    if not found:
        return ["no model was removed from this stack"]
    return [f"{one.what:>9}  {one.image}{'@' if one.digest else ''}{one.digest}: {one.why}" for one in found]


def document(found: Sequence[Pruned]) -> dict[str, Any]:
    """Return the images for programs."""
    return {"images": [asdict(one) for one in found]}
