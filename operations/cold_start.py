"""How long a model took to be served, phase by phase: from a pod's states, its events and its log."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from components.cluster.access import JSON, Cluster, ClusterError
from components.cluster.kserve_config import CONFIG_MAP
from components.cluster.pods import is_ready, pods_of
from components.config.kserve import KServeSettings
from components.config.quantities import quantity
from components.config.settings import Settings
from components.manifests.image_volume import model_image
from components.manifests.service import CONTAINER, MODEL_IS_THERE
from operations.kernel_use import KernelUse, describe, kernel_use
from operations.kernel_use import document as kernels_document
from operations.server_phases import Phase, lines_of, server_phases, stamp_of

#: What the kubelet says of a pull: https://github.com/kubernetes/kubernetes/blob/v1.34.4/pkg/kubelet/images
_PULLED = re.compile(
    r'Successfully pulled image "(?P<image>[^"]+)" in (?P<took>[\dhms.µ]+) \(.*?\)'
    r"(?:\. Image size: (?P<size>\d+) bytes)?"
)
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "µs": 1e-6}


@dataclass(frozen=True)
class ColdStart:
    """Seconds of each phase, in order; None where it is not known (a past event, a log that is gone).

    Kubernetes notes whole seconds of all but the pull and the log, so the others are right to a second.

    schedule: pod made, until it has a node. A node that has to come first is in here.
    pull: of the modelcar, download and unpacking; 0 where the node had it.
    start: until the server's container runs, but for the pull: sandbox, init container, the server's image.
        None where the container was started again: the former one's life would be in here.
    link: until the server sees the model.
    load: until the server is ready. None where the pod was not ready for a while later on: Kubernetes keeps
        the last time only.
    pod: its name. image_bytes: of the modelcar.
    server: what a GPU server did in `load`, by its log; empty for other servers. What is left of `load` is
        the probe's: until Kubernetes knows.
    sidecar_cpu: limit of the container that links the model, as Kubernetes writes it; None where it has none.
    kernels: whether the pod used those of its image; None of servers that know none.
    restarts: of the server's container. unready: whether the pod was not ready for a while after its start.
    unseen: what may not be read, so that phases are not known.
    """

    pod: str
    schedule: float | None
    pull: float | None
    start: float | None
    link: float | None
    load: float | None
    image_bytes: int | None = None
    server: tuple[Phase, ...] = ()
    sidecar_cpu: str | None = None
    kernels: KernelUse | None = None
    restarts: int = 0
    unready: bool = False
    unseen: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        """Seconds from the pod's making until it was ready, as far as is known."""
        parts = [self.schedule, self.pull, self.start, self.link, self.load]
        return sum(part for part in parts if part is not None)


#: KServe's name of the container that keeps the modelcar mounted (0.19, pkg/constants).
SIDECAR = "modelcar"
#: Seconds from which a link is slow, and the sidecar's limit from which it is not the reason.
SLOW_LINK, ENOUGH_CPU = 1.0, KServeSettings().modelcar_cpu
#: Seconds by which Kubernetes may be late to call a pod ready, beside what its probes allow.
LATE = 15.0

PHASES = ("schedule", "pull", "start", "link", "load")


def cold_start(cluster: Cluster, settings: Settings) -> ColdStart | None:
    """Return the phases of the newest ready pod's start; None where no pod is ready.

    Without the right to read events or logs, what they tell is not known.

    Raises:
        ClusterError: the API server went away, or the right to list pods is missing.
    """
    ready = [pod for pod in pods_of(cluster, settings.namespace, settings.service_name) if is_ready(pod)]
    if not ready:
        return None
    pod = max(ready, key=lambda one: str(one["metadata"]["creationTimestamp"]))
    metadata, status = pod["metadata"], pod["status"]
    # Some controllers give their own conditions no time.
    times = {entry["type"]: entry.get("lastTransitionTime") for entry in status["conditions"]}
    conditions = {name: stamp_of(time) for name, time in times.items() if time}
    made, scheduled = stamp_of(metadata["creationTimestamp"]), conditions.get("PodScheduled")
    image = model_image(pod) or ""
    path = f"/api/v1/namespaces/{settings.namespace}/events"
    selector = f"involvedObject.name={metadata['name']}"
    events: list[JSON] = []
    said, unseen = "", []
    try:
        events = (cluster.get(path, fieldSelector=selector) or {}).get("items") or []
    except ClusterError as error:
        unseen.append(f"events of the pod are not seen: {error}")
    try:
        said = cluster.logs(settings.namespace, metadata["name"], CONTAINER, None, stamped=True)
    except ClusterError as error:
        unseen.append(f"the server's log is not seen: {error}")
    pull, size = pulled(events, image)
    log = log_times(said)
    boxes: Sequence[JSON] = status.get("containerStatuses") or []
    server: JSON = next((box for box in boxes if box["name"] == CONTAINER), {})
    started, restarts = _started(server), int(server.get("restartCount") or 0)
    began, there = log or (started, None)
    phases, ready_at = server_phases(said, there or began), conditions.get("Ready")
    latest = _latest(pod, started, there or began, phases)
    unready = bool(latest and ready_at and ready_at > latest)
    return ColdStart(
        str(metadata["name"]),
        _between(made, scheduled),
        pull,
        None if restarts else _less(_between(scheduled, began), pull),
        _between(began, there),
        None if unready else _between(there or began, ready_at),
        size,
        phases,
        next((_limit(box) for box in pod["spec"]["containers"] if box["name"] == SIDECAR), None),
        kernel_use(said),
        restarts,
        unready,
        tuple(unseen),
    )


def _latest(
    pod: JSON, started: datetime | None, began: datetime | None, phases: Sequence[Phase]
) -> datetime | None:
    """Return until when this start can have made the pod ready; None where nothing tells.

    By the server's own line, where it logs one; else by its startup probe, which ends a server that takes
    longer. began: where the phases begin.
    """
    box = next(one for one in pod["spec"]["containers"] if one["name"] == CONTAINER)
    probes = [box[name] for name in ("startupProbe", "readinessProbe") if name in box]
    each = sum(probe.get("periodSeconds", 10) + probe.get("timeoutSeconds", 1) for probe in probes) + LATE
    if began and phases and phases[-1].name == "ready":
        return began + timedelta(seconds=sum(phase.seconds for phase in phases) + each)
    startup = box.get("startupProbe")
    if started is None or startup is None:
        return None
    budget = startup.get("failureThreshold", 3) * startup.get("periodSeconds", 10)
    return started + timedelta(seconds=startup.get("initialDelaySeconds", 0) + budget + each)


def caches(cluster: Cluster, settings: Settings) -> list[str]:
    """Return what of KServe's LocalModelCache concerns a modelcar: it does not hold any. Never raises.

    Source: KServe 0.19, `pkg/controller/v1alpha1/localmodel` and `config/storagecontainers/default.yaml`: a
    job of the storage initializer downloads what its prefixes name, and oci:// is none of them.
    """
    try:
        return _caches(cluster, settings)
    except ClusterError as error:
        return [f"whether LocalModelCache is on is not seen: {error}"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        why = f"ConfigMap {CONFIG_MAP}, or a cache, is not as KServe writes it"
        return [f"whether LocalModelCache is on is not seen: {why}"]


def _caches(cluster: Cluster, settings: Settings) -> list[str]:
    path = f"/api/v1/namespaces/{settings.kserve.namespace}/configmaps/{CONFIG_MAP}"
    data = (cluster.get(path) or {}).get("data") or {}
    if not json.loads(data.get("localModel") or "{}").get("enabled"):
        return []
    found = (cluster.get("/apis/serving.kserve.io/v1alpha1/localmodelcaches") or {}).get("items") or []
    ours = [
        one["metadata"]["name"] for one in found if str(one["spec"]["sourceModelUri"]).startswith("oci://")
    ]
    lines = [
        "LocalModelCache is on in this cluster; it downloads with KServe's storage initializer, which does "
        "not take oci://. For a modelcar the node's image cache is that: modelcar:prePull keeps it filled"
    ]
    return [*lines, *(f"LocalModelCache {name} names an oci:// URI: it is never filled" for name in ours)]


def pulled(events: Sequence[JSON], image: str) -> tuple[float | None, int | None]:
    """Return how long an image's pull took, in seconds, and its bytes; nothing where no event tells."""
    for event in events:
        found = _PULLED.search(str(event.get("message")))
        if found and found["image"] == image:
            return duration(found["took"]), int(found["size"]) if found["size"] else None
        if f'image "{image}" already present' in str(event.get("message")):
            return 0.0, None
    return None, None


def duration(text: str) -> float:
    """Return a duration as Go writes it (`1m2.5s`), in seconds."""
    parts = re.findall(r"([\d.]+)(ms|µs|h|m|s)", text)
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def log_times(text: str) -> tuple[datetime, datetime] | None:
    """Return when the server's container began, and when it saw the model, by its own first lines.

    Lines without a time are passed over: what a rotated log begins with, for example. A progress bar's
    returns end no line.
    """
    first: datetime | None = None
    for line in text.split("\n"):
        stamp, _, said = line.partition(" ")
        try:
            time = stamp_of(stamp)
        except ValueError:
            continue
        first = first or time
        if said == MODEL_IS_THERE:
            return first, time
    return None


def table(found: ColdStart) -> list[str]:
    """Return the phases for people."""
    lines = [found.pod]
    for name in PHASES:
        value = getattr(found, name)
        lines.append(f"  {name:<9} {'not known' if value is None else f'{value:9.1f} s'}")
    lines += [f"    {line}" for line in lines_of(found.server)]  # what the last one, load, was spent on
    lines.append(f"  {'in all':<9} {found.total:9.1f} s")
    kernels = [f"  kernels   {describe(found.kernels)}"] if found.kernels else []
    return [*lines, *kernels, *_slow_link(found), *_not_the_first(found), *found.unseen]


def _not_the_first(found: ColdStart) -> list[str]:
    """Return why a phase of a pod that did not start once and stay ready is not known."""
    lines = []
    if found.restarts:
        times = "once" if found.restarts == 1 else f"{found.restarts} times"
        lines.append(
            f"start: the server's container was started again, {times}; what is told from link on is of its "
            "last start, on a node that had everything"
        )
    if found.unready:
        lines.append(
            "load: the pod was not ready for a while after its start, and Kubernetes keeps the last time only"
        )
    return lines


def _slow_link(found: ColdStart) -> list[str]:
    """Return what shortens the link, where KServe's limit of the sidecar holds its start up."""
    if not found.link or found.link < SLOW_LINK or found.sidecar_cpu is None:
        return []
    if quantity(found.sidecar_cpu) >= quantity(ENOUGH_CPU):
        return []
    return [
        f"link: the sidecar may use {found.sidecar_cpu} of a processor, and its start takes more; "
        f"storageInitializer.cpuModelcar {ENOUGH_CPU} in KServe's ConfigMap {CONFIG_MAP} shortens it"
    ]


def _limit(box: JSON) -> str | None:
    limit = box.get("resources", {}).get("limits", {}).get("cpu")
    return None if limit is None else str(limit)


def document(found: ColdStart) -> dict[str, Any]:
    """Return the phases for programs."""
    return {**asdict(found), "total": found.total, "kernels": kernels_document(found.kernels)}


def _started(box: JSON) -> datetime | None:
    running = (box.get("state") or {}).get("running")
    started = (running or {}).get("startedAt")
    return stamp_of(started) if started else None


def _between(first: datetime | None, then: datetime | None) -> float | None:
    return None if first is None or then is None else max(0.0, (then - first).total_seconds())


def _less(whole: float | None, part: float | None) -> float | None:
    return whole if whole is None or part is None else max(0.0, whole - part)
