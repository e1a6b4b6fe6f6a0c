"""The user's own cluster and registry in place of the embedded platform (kind, for example)."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from local import kind, processor, stack, state_folder
from local.ask import ServedPod
from local.instance import Instance
from local.tool_list import Progress
from local.tools import Toolbox
from modelcar.base import LOCKED_ARCHITECTURES
from modelcar.errors import refuse
from modelcar.oci_layout import replace_file

#: The runbook's engine in its official CPU image; its tag is resolved to a digest before anything is served.
SERVER_TAG = "docker.io/vllm/vllm-openai-cpu:v0.23.0"
SERVER_ARGS = ["--dtype=float32", "--max-model-len=auto", "--enforce-eager"]


def is_named(settings: dict[str, Any]) -> bool:
    """Tell whether the stack's own settings have a cluster and a registry; nothing is refused."""
    return all(_said(settings))


def _said(settings: dict[str, Any]) -> tuple[bool, bool]:
    """Tell whether settings have a cluster, and whether they have a registry."""
    return bool(settings.get("kubeContext") or settings.get("kubeconfig")), bool(settings.get("registry"))


def is_chosen(settings: dict[str, Any]) -> bool:
    """Tell whether the stack's own settings point at a cluster and a registry of the user's.

    Raises:
        InputError: only one of the two is set.
    """
    for key in ("kubeContext", "kubeconfig", "registry"):
        if not isinstance(settings.get(key, ""), str):
            raise refuse(
                f"modelcar:{key}",
                "a secret" if isinstance(settings[key], dict) else str(settings[key]),
                allowed=f"text, for the stack {stack.STACK}",
                fix=f"set it in Pulumi.{stack.STACK}.yaml as plain text",
            )
    cluster, registry = _said(settings)
    if cluster == registry:
        return cluster
    missing = "modelcar:registry" if cluster else "modelcar:kubeContext"
    raise refuse(
        missing,
        "not set, while " + ("modelcar:kubeContext" if cluster else "modelcar:registry") + " is",
        allowed="both (your own cluster and registry), or neither (the embedded platform)",
        fix=f"set {missing} in Pulumi.{stack.STACK}.yaml too, or remove the other one (docs/local-stack.md)",
    )


def write_settings(instance: Instance, tools: Toolbox, settings: dict[str, Any], progress: Progress) -> None:
    """Write defaults for what the stack does not set itself: builder, server, its nodes' processor.

    Raises:
        InputError: the server's image cannot be resolved, or no builder can be made.
    """
    defaults: dict[str, Any] = {"gpuCount": 0, "cpu": "500m", "cpuLimit": "4", "memory": "4Gi"}
    defaults |= kind.settings(instance.state)
    if "serverImage" not in settings:
        defaults |= {"serverImage": pinned(SERVER_TAG, tools), "serverArgs": SERVER_ARGS}
    if "architecture" not in settings:
        defaults["architecture"] = _architecture(settings, tools)
    if "builder" not in settings:
        made = kind.read(instance.state)
        defaults["builder"] = _builder(made.builder if made else instance.builder, tools)
    state_folder.make(instance.state)
    replace_file(instance.settings_file, (json.dumps(defaults, indent=1) + "\n").encode())
    progress(
        f"cluster {settings.get('kubeContext') or settings['kubeconfig']}, registry {settings['registry']}"
    )


def _architecture(settings: dict[str, Any], tools: Toolbox) -> str:
    """Return the processor of the cluster's nodes, which may be elsewhere; this machine's where none is told.

    Of several it is this machine's if a node has that, else the first one.
    """
    command = [tools["kubectl"]]
    for key, option in (("kubeconfig", "--kubeconfig"), ("kubeContext", "--context")):
        command += [option, settings[key]] if settings.get(key) else []
    command += ["get", "nodes", "--request-timeout=10s"]
    command += ["--output", "jsonpath={.items[*].status.nodeInfo.architecture}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [name for name in result.stdout.split() if name in LOCKED_ARCHITECTURES]
    here = processor.architecture()
    return here if result.returncode or here in found or not found else found[0]


def pinned(image: str, tools: Toolbox) -> str:
    """Resolve an image's tag and return IMAGE@sha256:…, with the credentials that docker has.

    Raises:
        InputError: the registry does not have it or cannot be reached.
    """
    command = [tools["buildx"], "imagetools", "inspect", image, "--format", "{{.Manifest.Digest}}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise refuse(
            image,
            result.stderr.strip().removeprefix("ERROR: ") or f"exit status {result.returncode}",
            allowed="an image that its registry has and that this machine may read",
            fix="check the name and the network (docker login for a private registry); or set it by digest "
            "yourself in the stack's file: modelcar:serverImage: IMAGE@sha256:…",
        )
    return f"{image}@{result.stdout.strip()}"


def _builder(name: str, tools: Toolbox) -> str:
    """Make a builder that takes OCI layouts as contexts and sees a registry on localhost."""
    shown = [tools["buildx"], "inspect", name]
    if subprocess.run(shown, capture_output=True, check=False).returncode == 0:
        return name
    create = [tools["buildx"], "create", "--name", name]
    create += ["--driver", "docker-container", "--driver-opt", "network=host"]
    result = subprocess.run(create, capture_output=True, text=True, check=False)
    if result.returncode:
        raise refuse(
            "modelcar:builder",
            f"not set, and none can be made: {result.stderr.strip()}",
            allowed="the name of a buildx builder (driver docker-container, kubernetes or remote)",
            fix="start Docker, or in Pulumi.local.yaml: modelcar:builder: NAME",
        )
    return name


@contextmanager
def forwarded(
    pod: ServedPod, namespace: str, kubeconfig: str | None, context: str | None, tools: Toolbox
) -> Iterator[str]:
    """Yield a URL of the model server through a port forwarded to its pod.

    Raises:
        LookupError: kubectl cannot forward it.
    """
    command = [tools["kubectl"], "--namespace", namespace]
    command += ["--kubeconfig", kubeconfig] if kubeconfig else []
    command += ["--context", context] if context else []
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    forward = subprocess.Popen(
        [*command, "port-forward", f"pod/{pod.name}", f"{port}:{pod.port}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        first = forward.stdout.readline() if forward.stdout else ""
        if not first.startswith("Forwarding"):
            raise LookupError(f"kubectl port-forward: {first.strip()}")
        yield f"http://127.0.0.1:{port}"
    finally:
        forward.terminate()
        forward.wait()
