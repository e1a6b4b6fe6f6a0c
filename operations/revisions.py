"""Which images a stack's model was deployed with: what Kubernetes keeps of a Deployment's former versions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from components.cluster.access import Cluster
from components.config.problems import NAMESPACE
from components.config.settings import Settings
from components.image import former_image
from components.image.former_image import KEY
from components.manifests.network import SERVICE_LABEL
from modelcar import oci_names
from modelcar.errors import refuse

#: Kubernetes numbers a Deployment's versions; an older one that is taken up again gets a new number.
NUMBER = "deployment.kubernetes.io/revision"


@dataclass(frozen=True)
class Revision:
    """number: Kubernetes' own. created: RFC 3339. pods: that are there now. ready: those that serve."""

    number: int
    digest: str
    created: str
    pods: int
    ready: int


def revisions(cluster: Cluster, settings: Settings) -> list[Revision]:
    """Return the versions that Kubernetes keeps (ten, by its default), the newest first.

    Raises:
        InputError: the deployment mode is another one than Standard.
        ClusterError: the API server went away, or rights are missing.
    """
    if settings.deployment_mode != "Standard":
        raise refuse(
            f"{NAMESPACE}:deploymentMode",
            f"{settings.deployment_mode}, which keeps revisions of its own",
            allowed="Standard, to look up what was served before",
            fix="kubectl get revisions lists them; name a digest (--to), or set canaryTrafficPercent 0",
        )
    path = f"/apis/apps/v1/namespaces/{settings.namespace}/replicasets"
    label = f"{SERVICE_LABEL}={settings.service_name}"
    image = re.compile(re.escape(settings.place.repository) + r"@(?P<digest>sha256:[0-9a-f]{64})")
    found = []
    for one in (cluster.get(path, labelSelector=label) or {}).get("items") or []:
        named = image.search(json.dumps(one["spec"]["template"]))
        number = (one["metadata"].get("annotations") or {}).get(NUMBER)
        if named and number:
            created = str(one["metadata"]["creationTimestamp"])
            status = one.get("status") or {}
            pods, ready = (int(status.get(key, 0)) for key in ("replicas", "readyReplicas"))
            found.append(Revision(int(number), named["digest"], created, pods, ready))
    return sorted(found, key=lambda revision: -revision.number)


def former(
    cluster: Cluster | None,
    settings: Settings,
    digest: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> str:
    """Return the digest to roll back to, which the registry has.

    Args:
        cluster: that knows what was deployed before; not asked where a digest is given.
        settings: of the stack.
        digest: to roll back to; where None, as `before`.
        say: told what is not known of it.

    Raises:
        InputError: it is none, there is none, or the registry does not have it.
        ClusterError: the API server went away, or rights are missing.
    """
    if digest is None:
        if cluster is None:
            raise ValueError("without a digest the cluster is asked for one")
        chosen = before(revisions(cluster, settings), settings)
        digest = chosen.digest
        if not chosen.ready:
            say(
                f"{digest} has no ready pod now; whether it ever served is not known, as Kubernetes does not "
                "keep that (python -m operations revisions --stack … lists all; --to names another)"
            )
    elif not oci_names.is_digest(digest):
        raise refuse(KEY, digest, allowed="sha256:<64 hexadecimal digits>", fix="name an image by its digest")
    former_image.find(settings.model_copy(update={"rollback_to": digest}), preview=False)
    return digest


def before(found: Sequence[Revision], settings: Settings) -> Revision:
    """Return the version to go back to: the newest with another image than the newest of all.

    One that has ready pods comes first: after several that failed, it is the one that still serves.

    Raises:
        InputError: Kubernetes knows of none, or the stack is rolled back already.
    """
    if settings.rollback_to:
        raise refuse(
            KEY,
            f"{settings.rollback_to}: rolled back already, or the `up` for it failed",
            allowed="one step back from the lock's image",
            fix="where that `up` failed, run it again (make deploy STACK=…, or pulumi up); else go on to "
            "another image (--to sha256:…), or back to the lock's (--end)",
        )
    former = [revision for revision in found if revision.digest != found[0].digest]
    if not former:
        place = f"{settings.namespace}/{settings.service_name}"
        raise refuse(
            KEY,
            f"{place} was deployed with {'one image' if found else 'no image'} only, as far as is known",
            allowed="a model that was deployed with another image before",
            fix="name one that the registry has (--to sha256:…), or check the former lock out of Git",
        )
    return next((revision for revision in former if revision.ready), former[0])


def table(found: Sequence[Revision]) -> list[str]:
    """Return the versions for people."""
    lines = [f"{'revision':>8}  {'created':<20}  {'pods':>4}  {'ready':>5}  digest"]
    lines += [
        f"{one.number:>8}  {one.created:<20}  {one.pods:>4}  {one.ready:>5}  {one.digest}" for one in found
    ]
    return lines if found else ["no version is known"]


def document(found: Sequence[Revision]) -> dict[str, Any]:
    """Return the versions for programs."""
    return {"revisions": [vars(one) for one in found]}
