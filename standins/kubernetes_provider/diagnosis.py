"""Why an object is not ready: what its conditions, its pods and the cluster's events say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from standins.kubernetes_provider.cluster import Cluster, ClusterError, UnknownKindError, UnreachableError
from standins.kubernetes_provider.conditions import describe_condition
from standins.kubernetes_provider.readiness import INFERENCE_SERVICE_LABEL, is_inference_service

MOST_EVENTS = 5
LOG_LINES = 5
# Warnings about metrics say nothing of why a pod does not start.
_NOISY_KINDS = {"HorizontalPodAutoscaler"}
# Conditions whose normal status is False.
_NORMALLY_FALSE = {"stopped", "replicafailure"}


def reasons(cluster: Cluster, live: Mapping[str, Any], manager: str) -> list[str]:
    """Return what stands in the way, one reason an entry; what cannot be read is said as well.

    live: any state of the object; it is read afresh. manager: the field manager that applied it; events
    older than its last change are of no interest.
    """
    metadata = live["metadata"]
    namespace, name = metadata.get("namespace", ""), metadata["name"]
    found: list[str] = []
    try:
        now = cluster.get(cluster.resource_type(live["apiVersion"], live["kind"]).path(namespace, name))
        found += _conditions(now)
        if namespace:
            names = {name}
            selector = _selector(now)
            if selector:
                pods = cluster.items(f"/api/v1/namespaces/{namespace}/pods", labelSelector=selector)
                for pod in pods:
                    found += _pod(cluster, pod)
                names |= {pod["metadata"]["name"] for pod in pods}
                for deployment in cluster.items(
                    f"/apis/apps/v1/namespaces/{namespace}/deployments", labelSelector=selector
                ):
                    found += _deployment_failures(deployment)
                    names.add(deployment["metadata"]["name"])
            found += _events(cluster, namespace, names, _applied_at(now, manager))
    except ClusterError as error:
        found.append(f"the reason could not be read: {error}")
    except (UnknownKindError, UnreachableError) as error:
        found.append(str(error))
    return list(dict.fromkeys(found))


def _selector(live: Mapping[str, Any]) -> str:
    """Return the label selector of the object's pods, "" where it has none that we know of."""
    if is_inference_service(live):
        return f"{INFERENCE_SERVICE_LABEL}={live['metadata']['name']}"
    selector = (live.get("spec") or {}).get("selector")
    labels = selector.get("matchLabels") if isinstance(selector, dict) else None
    return ",".join(f"{key}={value}" for key, value in labels.items()) if labels else ""


def _conditions(live: Mapping[str, Any]) -> Iterable[str]:
    status = live.get("status") or {}
    for entry in status.get("conditions") or []:
        normal = "False" if str(entry.get("type")).lower() in _NORMALLY_FALSE else "True"
        if entry.get("status") != normal:
            yield describe_condition(entry)
    model = status.get("modelStatus") or {}
    failure = model.get("lastFailureInfo") or {}
    if failure.get("message") and model.get("transitionStatus") != "UpToDate":
        yield f"the model is {model.get('transitionStatus')}: {failure.get('reason')} - {failure['message']}"


def _deployment_failures(deployment: Mapping[str, Any]) -> Iterable[str]:
    for entry in (deployment.get("status") or {}).get("conditions") or []:
        if entry.get("type") == "ReplicaFailure" and entry.get("status") == "True":
            yield f"Deployment {deployment['metadata']['name']}: {entry.get('message')}"


def _pod(cluster: Cluster, pod: Mapping[str, Any]) -> Iterable[str]:
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    if status.get("phase") == "Pending" and not status.get("conditions"):
        yield f"pod {name} is Pending: no scheduler has looked at it"
    for entry in status.get("conditions") or []:
        if entry.get("type") == "PodScheduled" and entry.get("status") == "False":
            yield f"pod {name} is not scheduled: {entry.get('message') or entry.get('reason')}"
    for container in [
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    ]:
        told = _container(container)
        if told:
            yield f"pod {name}: container {container['name']} {told}"
            if container.get("restartCount") or "terminated" in (container.get("state") or {}):
                yield from _log(cluster, pod, container)


def _container(status: Mapping[str, Any]) -> str:
    state = status.get("state") or {}
    last = (status.get("lastState") or {}).get("terminated") or {}
    if "waiting" in state:
        waiting = state["waiting"]
        if waiting.get("reason") in ("PodInitializing", "ContainerCreating"):
            return ""
        text = f"is waiting: {waiting.get('reason')}"
        text += f" - {waiting['message']}" if waiting.get("message") else ""
        if last:
            text += f" (it ended with {last.get('exitCode')}, {last.get('reason')})"
        return text
    if state.get("terminated", {}).get("exitCode"):
        ended = state["terminated"]
        return f"ended with {ended['exitCode']}: {ended.get('reason')} {ended.get('message', '')}".rstrip()
    if "running" in state and status.get("ready") is False:
        return "runs but is not ready" + (f"; it restarted, {last.get('reason')}" if last else "")
    return ""


def _log(cluster: Cluster, pod: Mapping[str, Any], container: Mapping[str, Any]) -> Iterable[str]:
    metadata = pod["metadata"]
    previous = "terminated" not in (container.get("state") or {})
    try:
        log = cluster.text(
            f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/log",
            container=container["name"],
            previous=str(previous).lower(),
            tailLines=str(LOG_LINES),
        )
    except (ClusterError, UnreachableError) as error:
        yield f"the log of container {container['name']} could not be read: {error}"
        return
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    if lines:
        yield f"last log lines of container {container['name']}: " + " | ".join(lines)


def _applied_at(live: Mapping[str, Any], manager: str) -> str:
    """Return when the manager last changed the object, by the server's clock; "" where that is not known."""
    return max(
        (
            str(entry.get("time") or "")
            for entry in live["metadata"].get("managedFields") or []
            if entry.get("manager") == manager
        ),
        default="",
    )


def _events(cluster: Cluster, namespace: str, names: set[str], since: str) -> Iterable[str]:
    """Return the last Warning events about these objects or what is named after them (ReplicaSets)."""
    about = []
    for event in cluster.items(f"/api/v1/namespaces/{namespace}/events", fieldSelector="type=Warning"):
        subject = event.get("involvedObject") or {}
        called = str(subject.get("name"))
        if subject.get("kind") in _NOISY_KINDS or not any(
            called == name or called.startswith(f"{name}-") for name in names
        ):
            continue
        when = str(
            event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"]
        )
        if when >= since:
            text = " ".join(str(event.get("message", "")).split())
            about.append((when, f"event {event.get('reason')} on {subject.get('kind')} {called}: {text}"))
    about.sort()
    return [text for _, text in about[-MOST_EVENTS:]]
