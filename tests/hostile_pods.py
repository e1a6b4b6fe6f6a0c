"""Pods that bring an image into a namespace, by every way that a pod has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.conftest import Platform

#: What a dry run says of what is admitted.
ADMITTED = "created (server dry run)"
PATCHED = "patched"


def pod(server: str, **spec: Any) -> dict[str, Any]:
    """Return a pod with a server that is let in, and what `spec` says beside or in place of it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "asked"},
        "spec": {"containers": [{"name": "server", "image": server}], **spec},
    }


def volume(reference: str) -> dict[str, Any]:
    """Return an image volume (Kubernetes 1.35 and later by default)."""
    return {"name": "weights", "image": {"reference": reference, "pullPolicy": "IfNotPresent"}}


def ways_in(server: str, image: str) -> dict[str, dict[str, Any]]:
    """Return pods that hold an image, by what they do with it."""
    box = {"name": "modelcar", "image": image}
    return {
        "image volume": pod(server, volumes=[volume(image)]),
        "second image volume": pod(server, volumes=[{"name": "tmp", "emptyDir": {}}, volume(image)]),
        "container": pod(server, containers=[{"name": "server", "image": server}, box]),
        "init container": pod(server, initContainers=[box]),
        "sidecar": pod(server, initContainers=[{**box, "restartPolicy": "Always"}]),
    }


def holders(spec: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return one object of each kind that makes pods, by kind; CronJobs make Jobs."""
    labels = {"app": "hostile"}
    template = {"metadata": {"labels": labels}, "spec": dict(spec)}
    selected = {"selector": {"matchLabels": labels}, "template": template}
    job = {"template": {**template, "spec": {**spec, "restartPolicy": "Never"}}}
    specs: dict[str, tuple[str, dict[str, Any]]] = {
        **dict.fromkeys(("Deployment", "ReplicaSet", "DaemonSet"), ("apps/v1", selected)),
        "StatefulSet": ("apps/v1", {**selected, "serviceName": "none"}),
        "ReplicationController": ("v1", {"selector": labels, "template": template}),
        "Job": ("batch/v1", job),
        "InferenceService": ("serving.kserve.io/v1beta1", {"predictor": dict(spec)}),
    }
    return {
        kind: {"apiVersion": version, "kind": kind, "metadata": {"name": f"h-{kind.lower()}"}, "spec": own}
        for kind, (version, own) in specs.items()
    }


def asked(platform: Platform, namespace: str, document: Mapping[str, Any]) -> str:
    """Return what the API server, with all of its admission, says of an object; it is not kept."""
    create = ("-n", namespace, "create", "--dry-run=server", "-f", "-")
    return platform.kubectl(*create, check=False, text=json.dumps(document))


def verdicts(replica_sets: str) -> dict[str, str]:
    """Return what became of predictors' pods, by InferenceService: nothing, or why they were refused.

    replica_sets: JSON of `kubectl get replicasets`; those that nothing was decided of yet are left out.
    """
    found = {}
    for item in json.loads(replica_sets)["items"]:
        conditions = item["status"].get("conditions", [])
        failures = [entry["message"] for entry in conditions if entry["type"] == "ReplicaFailure"]
        if failures or item["status"].get("replicas"):
            found[item["metadata"]["name"].partition("-predictor")[0]] = "".join(failures)
    return found


def debugged(platform: Platform, namespace: str, name: str, image: str) -> str:
    """Return what the API server says of an ephemeral container in a pod that is there."""
    boxes = {"spec": {"ephemeralContainers": [{"name": "debug", "image": image}]}}
    patch = ("patch", "pod", name, "--subresource=ephemeralcontainers", "--dry-run=server")
    return platform.kubectl("-n", namespace, *patch, "-p", json.dumps(boxes), check=False)
