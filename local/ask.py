"""Ask the served model, and look at what KServe put into its pod.

Its address is the platform's own, or a port that is forwarded to this machine: no proxy leads there.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
from kubernetes import config
from kubernetes.client import CoreV1Api
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from components.cluster.access import reached_as_kubectl_does

PROMPT = "What are you?"


@dataclass(frozen=True)
class ServedPod:
    """The parts of a predictor's pod that show how the model reached it."""

    name: str
    address: str
    port: int
    init_containers: dict[str, str]
    sidecars: dict[str, str]
    shares_processes: bool
    user: int | None
    environment: dict[str, str]
    created: float
    ready: float


@dataclass(frozen=True)
class Answer:
    """What the model server said."""

    text: str
    model: str
    seconds: float


def core_api(kubeconfig: str | None, context: str | None) -> CoreV1Api:
    """Return a client for the cluster that the stack deploys to.

    Raises:
        LookupError: there is no such kubeconfig or context.
    """
    make: Any = config.new_client_from_config  # untyped in the client library
    try:
        return CoreV1Api(reached_as_kubectl_does(make(config_file=kubeconfig, context=context)))
    except config.ConfigException as error:
        raise LookupError(f"kubeconfig {kubeconfig or '(the default one)'}: {error}") from None


def served_pod(api: CoreV1Api, namespace: str, service: str) -> ServedPod:
    """Return the newest ready pod of an InferenceService.

    Raises:
        LookupError: no pod of it is ready, or the API server cannot be asked.
    """
    selector = f"serving.kserve.io/inferenceservice={service}"
    try:
        response: Any = api.list_namespaced_pod(namespace, label_selector=selector, _preload_content=False)
    except (ApiException, HTTPError) as error:
        raise LookupError(f"the API server does not answer: {error}") from None
    pods: list[dict[str, Any]] = json.loads(response.data)["items"]
    ready = [pod for pod in pods if _ready_since(pod) and "deletionTimestamp" not in pod["metadata"]]
    if not ready:
        states = ", ".join(f"{pod['metadata']['name']} is {pod['status'].get('phase')}" for pod in pods)
        raise LookupError(
            f"no ready pod of InferenceService {namespace}/{service}: {states or 'there is no pod'}"
        )
    return _describe(max(ready, key=lambda pod: str(pod["metadata"]["creationTimestamp"])))


def await_served(
    api: CoreV1Api, namespace: str, service: str, answers: Callable[[ServedPod], bool], seconds: float
) -> ServedPod:
    """Wait until a ready pod of an InferenceService also answers, and return it.

    A node that has just come back still shows what was true before it went: "ready" alone proves nothing.

    Args:
        answers: says whether the pod's server answers now.
        seconds: patience.

    Raises:
        LookupError: no pod is ready, or none answers, after that time.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            pod = served_pod(api, namespace, service)
            if answers(pod):
                return pod
            failure = LookupError(f"pod {namespace}/{pod.name} is ready, but its server does not answer")
        except LookupError as error:
            failure = error
        if time.monotonic() > deadline:
            raise failure
        time.sleep(0.5)


def is_healthy(base_url: str) -> bool:
    """Tell whether the model server says that it can serve (`/health`)."""
    try:
        return httpx.get(f"{base_url}/health", timeout=5, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _describe(pod: dict[str, Any]) -> ServedPod:
    spec = pod["spec"]
    server = next(box for box in spec["containers"] if box["name"] == "kserve-container")
    ports = server.get("ports") or [{"containerPort": 8080}]
    return ServedPod(
        name=pod["metadata"]["name"],
        address=pod["status"]["podIP"],
        port=ports[0]["containerPort"],
        init_containers={box["name"]: box["image"] for box in spec.get("initContainers", [])},
        sidecars={box["name"]: box["image"] for box in spec["containers"] if box is not server},
        shares_processes=spec.get("shareProcessNamespace", False),
        user=server.get("securityContext", {}).get("runAsUser"),
        environment={entry["name"]: entry.get("value", "") for entry in server.get("env", [])},
        created=_seconds(pod["metadata"]["creationTimestamp"]),
        ready=_ready_since(pod),
    )


def _ready_since(pod: dict[str, Any]) -> float:
    """Return when the pod became ready, in seconds since the epoch; 0 where it is not."""
    for condition in pod["status"].get("conditions", []):
        if condition["type"] == "Ready" and condition["status"] == "True":
            return _seconds(condition["lastTransitionTime"])
    return 0.0


def _seconds(timestamp: str) -> float:
    return datetime.datetime.fromisoformat(timestamp).timestamp()


def ask(
    base_url: str, model: str, prompt: str = PROMPT, max_tokens: int = 64, *, key: str | None = None
) -> Answer:
    """Send one completion request (OpenAI's `/v1/completions`) and return the answer.

    key: that the server wants; None where it wants none.

    Raises:
        LookupError: the server refused or cannot be reached.
    """
    started = time.monotonic()
    body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        response = httpx.post(
            f"{base_url}/v1/completions", json=body, headers=headers, timeout=120, trust_env=False
        )
    except httpx.HTTPError as error:
        raise LookupError(f"{base_url}/v1/completions: {error}") from None
    if response.is_error:
        raise LookupError(f"{base_url}/v1/completions: {response.status_code} {response.text[:500]}")
    document = response.json()
    return Answer(document["choices"][0]["text"], document["model"], time.monotonic() - started)
