"""`make up`: from weights on disk to an answered request, with a short summary at the end."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from components.settings import RESERVED_ENV
from local import ask, platform, servers, stack
from local.instance import PROJECT, Instance, cache_root
from local.plan import TOOL_IMAGE
from local.tools import Toolbox, collect
from modelcar.errors import refuse
from modelcar.tiny_model import make_tiny_model

TINY_MODEL = PROJECT / "modelcar" / "data" / "tiny-qwen2"


@dataclass
class Phases:
    """Wall-clock seconds of each phase, in order."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Time one phase and say that it is over."""
        say(f"── {name}")
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started
        say(f"   {name}: {self.seconds[name]:.1f} s")


def say(line: str) -> None:
    """Print one line of progress at once, in order with what child processes print."""
    print(line, flush=True)


def indented(line: str) -> None:
    """Print a line of progress that belongs to the current phase."""
    say(f"   {line}")


def stack_settings() -> dict[str, Any]:
    """Return the `modelcar:` settings that the local stack's own file sets."""
    document = yaml.safe_load(stack.config_file().read_text()) or {}
    config: dict[str, Any] = document.get("config") or {}
    return {key.removeprefix("modelcar:"): value for key, value in config.items()}


def has_own_cluster(settings: dict[str, Any]) -> bool:
    """Tell whether the stack points at the user's own cluster and registry.

    Raises:
        InputError: only one of the two is set.
    """
    cluster = bool(settings.get("kubeContext") or settings.get("kubeconfig"))
    registry = bool(settings.get("registry"))
    if cluster == registry:
        return cluster
    missing = "modelcar:registry" if cluster else "modelcar:kubeContext"
    raise refuse(
        missing,
        "not set, while " + ("modelcar:kubeContext" if cluster else "modelcar:registry") + " is",
        allowed="both (your own cluster and registry), or neither (the embedded platform)",
        fix=f"pulumi config set {missing} …   (stack {stack.STACK})",
    )


def prepare(instance: Instance, phases: Phases) -> tuple[Toolbox, bool]:
    """Make ready all that `pulumi up` needs: tools, platform, model server and model."""
    settings = stack_settings()
    own_cluster = has_own_cluster(settings)
    with phases.time("tools"):
        tools = collect(indented, embedded=not own_cluster)
        for name in tools.standins:
            indented(f"NOTE: the official {name} is not on this machine; a stand-in of this project serves")
    if not own_cluster:
        with phases.time("platform"):
            platform.up(instance, tools, indented)
        with phases.time("model server"):
            write_platform_settings(instance)
    if PROJECT / str(settings.get("weights", "")) == TINY_MODEL:
        with phases.time("model"):
            make_tiny_model(TINY_MODEL)
    return tools, own_cluster


def write_platform_settings(instance: Instance) -> None:
    """Write the settings that belong to this machine, which the program takes as its defaults."""
    wanted = os.environ.get("MODELCAR_SERVER", "auto")
    free_memory, free_disk = psutil.virtual_memory().available, shutil.disk_usage(cache_root()).free
    kind, reason = servers.choose(wanted, free_memory, free_disk, cache=cache_root())
    indented(f"model server: {kind} ({reason})")
    server = servers.ensure(kind, cache_root(), uv_program(), indented)
    base = json.loads((instance.state / "base" / "index.json").read_text())["manifests"][0]["digest"]
    settings = {
        "registry": f"{instance.registry}/models",
        "registryInsecure": True,
        "builder": instance.builder,
        "baseImage": f"oci-layout://{instance.state / 'base'}@{base}",
        "kubeconfig": str(instance.kubeconfig),
        "serverImage": f"{instance.registry}/{TOOL_IMAGE}@{base}",
        "serverCommand": server.command,
        "serverArgs": server.args,
        # The program itself sets the reserved ones, on every stack.
        "serverEnv": [f"{name}={value}" for name, value in server.env.items() if name not in RESERVED_ENV],
        "serverHostPaths": server.host_paths,
        # A small request and a wide limit: the laptop's processors are shared with the platform itself.
        "cpu": "100m",
        "cpuLimit": str(psutil.cpu_count() or 1),
        "memory": server.memory,
    }
    instance.settings_file.write_text(json.dumps(settings, indent=1) + "\n")


def uv_program() -> Path:
    """Return uv, which `make` has put beside the environment or which is on PATH."""
    found = os.environ.get("UV") or shutil.which("uv")
    if not found:
        raise refuse("uv", "not on PATH", allowed="uv, which `make` installs", fix="run `make up`")
    return Path(found)


def up(instance: Instance) -> None:
    """Bring everything up, ask the model one question and print the summary.

    Raises:
        InputError, PlatformError, PulumiError: with a message that is meant for the user.
    """
    phases = Phases()
    tools, own_cluster = prepare(instance, phases)
    with phases.time("pulumi up"):
        stack.select(instance, tools)
        for line in stack.recover(instance, tools):
            indented(line)
        stack.pulumi(instance, tools, "up", "--yes", "--skip-preview", "--stack", stack.STACK)
    outputs = stack.outputs(instance, tools)
    settings = stack_settings()
    kubeconfig = settings.get("kubeconfig") if own_cluster else str(instance.kubeconfig)
    api = ask.core_api(kubeconfig, settings.get("kubeContext"))
    pod = ask.served_pod(api, outputs["namespace"], outputs["serviceName"])
    with (
        phases.time("request"),
        reach(pod, outputs["namespace"], kubeconfig, settings, tools, own_cluster) as url,
    ):
        answer = ask.ask(url, outputs["servedModelName"])
    print_summary(outputs, pod, answer, url, phases)
    evidence = {"outputs": outputs, "answer": asdict(answer), "pod": asdict(pod), "seconds": phases.seconds}
    (instance.state / "summary.json").write_text(json.dumps(evidence, indent=1) + "\n")


@contextmanager
def reach(
    pod: ask.ServedPod,
    namespace: str,
    kubeconfig: str | None,
    settings: dict[str, Any],
    tools: Toolbox,
    own_cluster: bool,
) -> Iterator[str]:
    """Yield a URL of the model server: the pod's own address, or a port forwarded to it."""
    if not own_cluster:
        yield f"http://{pod.address}:{pod.port}"
        return
    command = [tools["kubectl"], "--namespace", namespace]
    command += ["--kubeconfig", kubeconfig] if kubeconfig else []
    command += ["--context", settings["kubeContext"]] if settings.get("kubeContext") else []
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
            raise platform.PlatformError(f"kubectl port-forward: {first.strip()}")
        yield f"http://127.0.0.1:{port}"
    finally:
        forward.terminate()
        forward.wait()


def print_summary(
    outputs: dict[str, Any], pod: ask.ServedPod, answer: ask.Answer, url: str, phases: Phases
) -> None:
    """Print what was served, from where, and how long each phase took."""
    offline = ", ".join(
        f"{name}={pod.environment.get(name)}" for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )
    rows = [
        ("model", answer.model),
        ("prompt", ask.PROMPT),
        ("answer", repr(answer.text)),
        ("digest", outputs["modelDigest"]),
        ("storage URI", outputs["storageUri"]),
        ("service", f"{outputs['namespace']}/{outputs['serviceName']}"),
        ("endpoint", f"{url}/v1/completions"),
        ("pod", f"{pod.name}, uid {pod.user}, ready {pod.ready - pod.created:.0f} s after it was made"),
        ("injected", f"init containers {list(pod.init_containers)}, sidecars {list(pod.sidecars)}"),
        ("", f"shared process namespace {pod.shares_processes}, weights at /mnt/models, {offline}"),
    ]
    rows += [("time", f"{seconds:7.1f} s  {name}") for name, seconds in phases.seconds.items()]
    rows += [("time", f"{sum(phases.seconds.values()):7.1f} s  in all")]
    say("")
    for name, value in rows:
        say(f"{name:>12}  {value}")
    sys.stdout.flush()
