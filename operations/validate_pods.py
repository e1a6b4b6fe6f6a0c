"""`validate`: what each pod that serves is made of; others than the newest may be of a former declaration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from components.cluster import workload
from components.cluster.access import JSON, Cluster, ClusterError
from components.cluster.pods import revision_of
from components.config.settings import Settings
from components.manifests.image_volume import model_image
from components.manifests.service import CONTAINER, OFFLINE
from operations.next_step import brought
from operations.validation_report import Line


def by_digest(cluster: Cluster, settings: Settings, pods: Sequence[JSON], storage_uri: str | None) -> Line:
    """Tell whether the pods serve the image that the stack says, by its digest.

    Args:
        cluster: that they are on.
        settings: of the model.
        pods: that are ready, the newest last.
        storage_uri: that the stack says; None where that is not known.
    """
    newest, image = pods[-1], model_image(pods[-1])
    alike = [name_of(pod) for pod in pods[:-1] if model_image(pod) == image]
    seen = [f"{name_of(newest)} on {newest['spec'].get('nodeName')}, {image or 'no modelcar'}"]
    if alike:
        seen.append(f"the same in {', '.join(alike)}")
    verdicts: list[bool | None] = ["@sha256:" in (image or "")]
    fix = ""
    if storage_uri is None:
        verdicts.append(None)
        seen.append("the stack's outputs do not say which image it is to be")
        fix = "pulumi up: its outputs say it then"
    elif image != storage_uri.removeprefix("oci://"):
        verdicts.append(False)
        fix = f"the stack says {storage_uri}: {brought(settings)}"
    for pod in pods[:-1]:
        if model_image(pod) != image:
            passed, told = _former(cluster, settings, pod)
            verdicts.append(passed)
            seen.append(f"{name_of(pod)} serves {model_image(pod) or 'no modelcar'}, {told}")
            if not passed and not fix:
                fix = f"see why its pods stay: kubectl -n {settings.namespace} get pods; {brought(settings)}"
    details = {"pods": {name_of(pod): model_image(pod) for pod in pods}} if len(pods) > 1 else {}
    passed = False if False in verdicts else None if None in verdicts else True
    return Line("served by digest", passed, "; ".join(seen), fix, details)


def _former(cluster: Cluster, settings: Settings, pod: JSON) -> tuple[bool | None, str]:
    """Return whether another image than the newest pod's may be served beside it, and what is told of it.

    In Knative mode a former revision may: where the stack lets it have a share of the requests, and without
    one, as it leaves.
    """
    if settings.deployment_mode != "Knative":
        return False, "and is ready too"
    revision = revision_of(pod)
    try:
        status = (cluster.get(workload.path(settings)) or {}).get("status") or {}
    except ClusterError as error:
        return None, f"and what requests revision {revision} gets is not seen: {error}"
    shares = [one for one in status.get("traffic") or [] if one.get("revisionName") == revision]
    share = sum(int(one.get("percent") or 0) for one in shares)
    told = f"as former revision {revision} gets {share} % of the requests"
    return not share or settings.canary_traffic_percent is not None, told


def stays_offline(settings: Settings, pods: Sequence[JSON]) -> Line:
    """Tell whether the servers of all these pods are told to ask no hub."""
    seen = [_told(pods[-1])]
    seen += [f"{name_of(pod)}: {_told(pod)}" for pod in pods[:-1] if _told(pod) != seen[0]]
    wrong = any(dict(_variables(pod)) != OFFLINE for pod in pods)
    fix = f"{brought(settings)}: the program sets them" if wrong else ""
    return Line("told to stay offline", not wrong, "; ".join(seen), fix)


def name_of(pod: JSON) -> str:
    """Return a pod's name."""
    return str(pod["metadata"]["name"])


def _told(pod: JSON) -> str:
    return ", ".join(f"{name}={value}" for name, value in _variables(pod))


def _variables(pod: JSON) -> Iterator[tuple[str, str]]:
    server = next(box for box in pod["spec"]["containers"] if box["name"] == CONTAINER)
    values = {entry["name"]: entry.get("value", "") for entry in server.get("env") or []}
    return ((name, values.get(name, "not set")) for name in OFFLINE)
