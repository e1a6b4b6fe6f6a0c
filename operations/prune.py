"""Images of models that a stack no longer has: deleted once they were kept for the time that the stack says.

What any InferenceService or pod of the cluster still names is left alone, with all that is attached to it.
So is what this program did not build. Other clusters are not asked, so nothing is deleted unless told to
(`--delete`).
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import httpx

from components.cluster.access import Cluster, ClusterError
from components.config.problems import NAMESPACE
from components.config.stack import Stack
from modelcar import deletion
from modelcar.errors import InputError, refuse
from modelcar.registry import Registry, Target
from operations.prune_plan import Part, in_order, plan

_KSERVE = "/apis/serving.kserve.io/v1beta1"
#: What may name an image.
_USERS = (f"{_KSERVE}/inferenceservices", "/api/v1/pods")
#: Repositories of images that an object names by digest, as a storage URI or as an image.
_PINNED = re.compile(r'"(?:oci://)?(?P<repository>[^"@\s]+)@sha256:[0-9a-f]{64}"')
#: Told where there is nothing to tell.
NONE = "no model was removed from this stack"
#: Becomes of what the registry does not delete, or does not let anybody look at.
REFUSED = "refused"


@dataclass(frozen=True)
class Pruned:
    """One image. what: kept, served, gone, to delete, deleted, or refused. why: for people."""

    image: str
    digest: str
    what: str
    why: str


def prune(
    cluster: Cluster,
    stack: Stack,
    outputs: Mapping[str, Any],
    today: datetime.date,
    *,
    delete: bool,
    tell: Callable[[Pruned], None] = lambda _: None,
) -> list[Pruned]:
    """Return what becomes of each image of a removed model.

    A registry that refuses one of them is told with that, as is a cluster that does not say who uses a
    repository's; the others go on.

    Args:
        cluster: of the stack; asked what is still served.
        stack: its settings.
        outputs: of the stack.
        today: to count from.
        delete: do it; otherwise only look.
        tell: given each as soon as it is known: what is deleted is gone, however this ends.

    Raises:
        InputError: the cluster is another one than the stack's.
        ClusterError: it does not tell whether it is.
    """
    found: list[Pruned] = []
    for one in _each(cluster, stack, outputs, today, delete=delete):
        tell(one)
        found.append(one)
    return found


def _each(
    cluster: Cluster, stack: Stack, outputs: Mapping[str, Any], today: datetime.date, *, delete: bool
) -> Iterator[Pruned]:
    told = outputs.get("removedModels") or {}
    if told:
        _require_own(cluster, stack, outputs)
    for image, row in sorted(told.items()):
        left = stack.keep_removed_days - (today - datetime.date.fromisoformat(row["since"])).days
        if left > 0:
            why = f"{row['model']} was removed on {row['since']}: kept for {left} more days"
            yield Pruned(image, row["modelDigest"], "kept", why)
            continue
        try:
            yield from _repository(cluster, stack, image, delete=delete)
        except InputError as error:
            for one in error.problems:
                yield Pruned(image, "", REFUSED, f"{one.value}; {one.fix}")
        except ClusterError as error:
            yield Pruned(image, "", REFUSED, f"not known who uses it: {error}; run this again")


def _require_own(cluster: Cluster, stack: Stack, outputs: Mapping[str, Any]) -> None:
    """Refuse a cluster that does not serve what the stack does: nobody there would name its images.

    One that has services of the same names may be another stack's, as dev's for prod. A model that is not
    there at all may be one that the stack has had for no more than a run.
    """
    there, others = False, []
    models = list((outputs.get("models") or {}).values())
    for told in models:
        space, name = told["namespace"], told["serviceName"]
        service = cluster.get(f"{_KSERVE}/namespaces/{space}/inferenceservices/{name}")
        if service is None:
            continue
        there = True
        own = _repository_of(told.get("storageUri", ""))
        named = list(dict.fromkeys(_PINNED.findall(json.dumps(service.get("spec")))))
        if own and own not in named:
            seen = ", ".join(named) or "no image by digest"
            others.append(f"{space}/{name} names {seen} there, and the stack says {own}")
    found = "; ".join(others)
    if models and not there:
        shown = ", ".join(f"{told['namespace']}/{told['serviceName']}" for told in models)
        found = f"it has none of the stack's InferenceServices ({shown})"
    if found:
        again = (
            "commit and push the stack's files, and synchronise them in Argo CD"
            if stack.shared.delivery == "gitops"
            else "`pulumi up --refresh`"
        )
        raise refuse(
            "the stack's cluster",
            f"{cluster.name}: {found}; so it cannot tell which images are still served",
            allowed="the cluster that the stack deploys to",
            fix=f"choose its context (`kubectl config use-context …`, or {NAMESPACE}:kubeContext); where it "
            f"is the stack's, and services were deleted or changed by hand: {again}",
        )


def _repository_of(storage_uri: str) -> str:
    return storage_uri.removeprefix("oci://").partition("@")[0]


def _repository(cluster: Cluster, stack: Stack, image: str, *, delete: bool) -> Iterator[Pruned]:
    for model in stack.models:
        if model.place.repository == image:
            yield Pruned(image, "", "kept", f"{model.key} is served from it")
            return
    shared, name = stack.shared, image.removeprefix(f"{stack.shared.registry}/")
    if name == image:
        why = f"in another registry than the stack's ({shared.registry}): delete it there"
        yield Pruned(image, "", "kept", why)  # no fault of this stack, and told at each run
        return
    target = Target(shared.registry, name, shared.registry_insecure)
    with Registry(target, delete=delete) as registry:
        tagged = registry.tagged()
        if not tagged:
            yield Pruned(image, "", "gone", "the registry has none of it")
            return
        # Asked as late as possible: what is deleted cannot be served again.
        users = json.dumps([cluster.get(path) for path in _USERS])
        parts = plan(registry, tagged, users)
        if delete:
            yield from _delete(registry, image, parts)
    yield from (_looked_at(image, part) for part in parts.values() if part.kept or not delete)


def _looked_at(image: str, part: Part) -> Pruned:
    if part.kept:
        return Pruned(image, part.digest, "served" if part.served else "kept", part.kept)
    return Pruned(image, part.digest, "to delete", "with --delete")


def _delete(registry: Registry, image: str, parts: Mapping[str, Part]) -> Iterator[Pruned]:
    """Delete what can go, in order; what a refusal keeps, or a registry that went away, stays."""
    gone: set[str] = set()
    away = ""
    for part in in_order(parts):
        blocked = next((digest for digest in sorted(part.after) if digest not in gone), None)
        if away:
            what, why = REFUSED, f"not tried: {away}"
        elif blocked:
            what, why = "kept", f"attached to or listed by {blocked}, which stays"
        else:
            what, why = "deleted", "its blobs go when the registry collects them"
            try:
                deletion.delete(registry, part.digest, part.tags)
            except deletion.KeptError as error:
                what, why = REFUSED, f"{error}; {error.fix}"
            except httpx.HTTPError as error:
                [problem] = registry.in_words(error).problems
                what, why = REFUSED, f"{problem.value}; {problem.fix}"
                away = problem.value if isinstance(error, httpx.TransportError) else ""
            except KeyboardInterrupt:
                why = "stopped while the registry was asked to delete it: run this again to see"
                yield Pruned(image, part.digest, REFUSED, why)
                raise
        if what == "deleted":
            gone.add(part.digest)
        yield Pruned(image, part.digest, what, why)


def line(one: Pruned) -> str:
    """Return an image for people."""
    return f"{one.what:>9}  {one.image}{'@' if one.digest else ''}{one.digest}: {one.why}"


def document(found: Sequence[Pruned]) -> dict[str, Any]:
    """Return the images for programs."""
    return {"images": [asdict(one) for one in found]}


def status(found: Sequence[Pruned]) -> int:
    """Return the exit status: 1 where something should have gone and did not."""
    return int(any(one.what == REFUSED for one in found))
