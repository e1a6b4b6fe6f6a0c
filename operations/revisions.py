"""Which images a stack's model was served with: what Kubernetes keeps of a Deployment's former versions."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
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
    """number: Kubernetes' own. created: RFC 3339. pods: that are there now."""

    number: int
    digest: str
    created: str
    pods: int


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
            pods = int((one.get("status") or {}).get("replicas", 0))
            found.append(Revision(int(number), named["digest"], created, pods))
    return sorted(found, key=lambda revision: -revision.number)


def former(cluster: Cluster | None, settings: Settings, digest: str | None = None) -> str:
    """Return the digest to roll back to, which the registry has.

    Args:
        cluster: that knows what was served before; not asked where a digest is given.
        settings: of the stack.
        digest: to roll back to; the one before the newest where None.

    Raises:
        InputError: it is none, there is none, or the registry does not have it.
        ClusterError: the API server went away, or rights are missing.
    """
    if digest is None:
        if cluster is None:
            raise ValueError("without a digest the cluster is asked for one")
        digest = before(revisions(cluster, settings), settings)
    elif not oci_names.is_digest(digest):
        raise refuse(KEY, digest, allowed="sha256:<64 hexadecimal digits>", fix="name an image by its digest")
    former_image.find(settings.model_copy(update={"rollback_to": digest}), preview=False)
    return digest


def before(found: Sequence[Revision], settings: Settings) -> str:
    """Return the digest that was served before the newest one.

    Raises:
        InputError: Kubernetes knows of none, or the stack is rolled back already.
    """
    if settings.rollback_to:
        raise refuse(
            KEY,
            f"{settings.rollback_to}: rolled back already",
            allowed="one step back from the lock's image",
            fix="go on to another image (--to sha256:…), or back to the lock's (--end)",
        )
    former = [revision.digest for revision in found if revision.digest != found[0].digest]
    if not former:
        place = f"{settings.namespace}/{settings.service_name}"
        raise refuse(
            KEY,
            f"{place} was served with {'one image' if found else 'no image'} only, as far as is known",
            allowed="a model that was served with another image before",
            fix="name one that the registry has (--to sha256:…), or check the former lock out of Git",
        )
    return former[0]


def table(found: Sequence[Revision]) -> list[str]:
    """Return the versions for people."""
    lines = [f"{'revision':>8}  {'created':<20}  {'pods':>4}  digest"]
    lines += [f"{one.number:>8}  {one.created:<20}  {one.pods:>4}  {one.digest}" for one in found]
    return lines if found else ["no version is known"]


def document(found: Sequence[Revision]) -> dict[str, Any]:
    """Return the versions for programs."""
    return {"revisions": [vars(one) for one in found]}
