"""`make up`: from weights on disk to an answered request, with a short summary at the end."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from components.config.models import first_name
from local import (
    ask,
    expected,
    kind,
    kubernetes_provider,
    own_cluster,
    platform,
    servers,
    stack,
    stack_file,
    uv,
)
from local.downloads.obtain import downloadable
from local.gpu import Gpus
from local.instance import PROJECT, Instance, cache_root, state_root
from local.oci_push import digest_of
from local.other_versions import chosen_kserve
from local.plan import TOOL_IMAGE, versions
from local.plugins import KUBERNETES_PLUGIN_VERSION
from local.processor import architecture
from local.serving import decide, full_cards
from local.tool_list import DEVICE_PLUGIN
from local.tools import Toolbox, collect, signing_tools, unbuilt
from modelcar import fetching
from modelcar.demo_model import make_demo_model
from modelcar.errors import refuse
from modelcar.lock import lock_path
from modelcar.lock_reader import read_lock
from modelcar.locking import layout_path
from modelcar.oci_layout import replace_file, require_space
from modelcar.progress import say as say_above
from modelcar.progress import working

#: Patience for a server whose node has just come back; a new one was waited for by `pulumi up`.
SERVER_SECONDS = 300.0

#: Where the weights of an image come to lie on this machine, each as large as the weights.
COPIES = (
    "its OCI layout",
    "BuildKit's store",
    "the registry",
    "the node's image",
    "the node's unpacked image",
)

#: The model of the local stack as it is committed, and the folder that its lock names.
TINY_MODEL = "tiny-qwen2"
TINY_FOLDER = PROJECT / "modelcar" / "data" / TINY_MODEL


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
        taken = time.monotonic() - started
        self.seconds[name] = self.seconds.get(name, 0.0) + taken
        say(f"   {name}: {taken:.1f} s")


def say(line: str) -> None:
    """Print one line of progress at once, in order with what child processes print."""
    say_above(line)


def indented(line: str) -> None:
    """Print a line of progress that belongs to the current phase."""
    say(f"   {line}")


def stack_settings(name: str = stack.STACK) -> dict[str, Any]:
    """Return the `modelcar:` settings of a stack's own file; the local one's also of what KIND=1 made."""
    made = kind.settings(state_root() / stack.STACK) if name == stack.STACK else {}
    return {**made, **file_settings(name)}


def file_settings(name: str = stack.STACK) -> dict[str, Any]:
    """Return the `modelcar:` settings that a stack's own file sets; none where there is no file.

    Raises:
        InputError: as `stack_file.read`.
    """
    return stack_file.read(stack.config_file(name))


def start_kind(instance: Instance, phases: Phases, in_kind: str = "") -> bool:
    """Start what `make up KIND=1` made, also for later commands, which need not say it again.

    Returns whether the cluster or its registry was made.

    Args:
        instance: the platform.
        phases: takes the time.
        in_kind: 1, or a name, where the command says it.

    Raises:
        InputError: see `kind.up`.
    """
    made = kind.read(instance.state)
    if not in_kind and (made is None or kind.beside(file_settings())):
        return False
    with phases.time("kind"):
        return kind.up(instance, in_kind or (made.name if made else ""), file_settings(), indented)


def prepare(instance: Instance, phases: Phases) -> tuple[Toolbox, bool]:
    """Make ready all that `pulumi up` needs: tools, platform, model server and model."""
    settings = stack_settings()
    own = own_cluster.is_chosen(settings)
    if not own:
        missing = unbuilt()
        running = platform.supervisor(instance) is not None
        say(expected.told(missing, running=running, downloads=downloadable(missing)))
    with phases.time("tools"):
        gpus = None if own else choose_gpus(instance, settings)
        plugin = (DEVICE_PLUGIN,) if gpus else ()
        tools = collect(indented, embedded=not own, extra=(*plugin, *signing_tools(settings)))
        if not own:
            tools = chosen_kserve(tools, indented)
        tell_what_serves(tools, indented)
    if own:
        with phases.time("your cluster"):
            own_cluster.write_settings(instance, tools, settings, indented)
    else:
        with phases.time("platform"):
            start_platform(instance, tools, gpus)
        with phases.time("model server"):
            write_platform_settings(instance, gpus)
    if TINY_MODEL in models_of(settings):
        with phases.time("model"):
            make_demo_model(TINY_FOLDER)
    if not own:
        require_disk(instance, settings)
    return tools, own


def tell_what_serves(tools: Toolbox, progress: Callable[[str], None]) -> None:
    """Say which of Pulumi's own programs could not be had, and what serves for each."""
    for name in tools.built_plugins:
        progress(
            f"NOTE: {name} {kubernetes_provider.VERSION} serves, built from Pulumi's source: "
            f"{KUBERNETES_PLUGIN_VERSION}, which its SDK asks for, cannot be downloaded here"
        )
    for name in tools.standins:
        progress(f"NOTE: the official {name} is not on this machine; a stand-in of this project serves")


def choose_gpus(instance: Instance, settings: dict[str, Any]) -> Gpus | None:
    """Return the GPUs that this stack is served on, None for the CPU, and say what was found and chosen.

    Raises:
        InputError: a GPU is asked for that is not there, or does not fit (see `serving.decide`).
    """
    serving = decide(settings)
    found = serving.found
    if found.gpus:
        indented(f"GPU: {found.found}")
    elif found.fix:  # a card without a driver, or the other way round
        indented(f"NOTE: GPU: {found.found}")
    if found.fix:
        indented(f"fix: {found.fix}")
    if not serving.gpus:
        if found.gpus:
            indented(f"NOTE: served without the GPU: {serving.reason}")
        return None
    indented(f"model server: {serving.kind} ({serving.reason})")
    if not platform.hands_out(instance):  # else what fills the card may be this platform's own pod
        for warning, fix in full_cards(serving.gpus, settings):
            indented(f"WARNING: {warning}\n   fix: {fix}")
    return serving.gpus


def start_platform(instance: Instance, tools: Toolbox, gpus: Gpus | None) -> None:
    """Start the platform with these GPUs and versions; where it runs with others, start it again.

    Its node is told at its start what it may hand out. Images and the cluster's state stay, and its pods
    come back.

    Raises:
        PlatformError, InputError: see `platform.up`.
    """
    wanted = {card.uuid for card in gpus.cards} if gpus else set()
    runs = []
    if platform.supervisor(instance) is not None:
        if platform.hands_out(instance) != wanted:
            runs.append("without this GPU" if gpus else "with a GPU that this stack is not served on")
        started, chosen = platform.started_with(instance), versions(tools)
        other = [name for name, version in started.items() if version != chosen.get(name, version)]
        runs += [f"with {name} {started[name]}, and not {chosen[name]}" for name in other]
    if runs:
        indented(f"the platform runs {'; '.join(runs)}: starting it again")
        stack.await_run(indented)
        platform.down(instance, indented)
    platform.up(instance, tools, indented, gpus)


def models_of(settings: dict[str, Any]) -> list[str]:
    """Return the locked models that a stack's settings name; one with an image that is there has no lock."""
    if "models" in settings:
        built = [entry for entry in stack_file.models_of(settings) if not entry.get("image")]
        return [str(entry.get("model", first_name(entry))) for entry in built]
    if settings.get("image"):
        return []
    return [str(settings["model"])] if settings.get("model") else []  # Pulumi's program tells what is missing


def require_disk(instance: Instance, settings: dict[str, Any]) -> None:
    """Refuse a model whose copies would fill the disk: everything between hub and pod is on this machine.

    Raises:
        InputError: the lock is missing or wrong, or the disk has too little room.
    """
    missing = 0
    for model in models_of(settings):
        lock = read_lock(PROJECT / model if model.endswith(".lock") else lock_path(PROJECT, model))
        missing += fetching.missing_bytes(lock, layout_path(PROJECT, lock.name))
    if missing:
        require_space(instance.state, missing * len(COPIES), f"{len(COPIES)} copies: {', '.join(COPIES)}")


def write_platform_settings(instance: Instance, gpus: Gpus | None = None) -> None:
    """Write the settings that belong to this machine, which the program takes as its defaults.

    Args:
        instance: the platform.
        gpus: the cards that its node hands out; None lets the CPU serve.
    """
    base = digest_of(instance.state / "base")
    settings = platform_settings(instance, model_server(gpus), base, psutil.cpu_count() or 1)
    replace_file(instance.settings_file, (json.dumps(settings, indent=1) + "\n").encode())


def platform_settings(
    instance: Instance, server: servers.ServerEnvironment, base: str, processors: int
) -> dict[str, Any]:
    """Return the settings that belong to this machine.

    Args:
        instance: the platform, whose registry, builder and cluster they name.
        server: the model server that the pods mount from the host.
        base: digest of the image that the pods run it in.
        processors: how many this machine has.
    """
    on_gpu = server.kind == "vllm-cuda"
    return {
        "registry": f"{instance.registry}/models",
        "registryInsecure": True,
        "builder": instance.builder,
        "architecture": architecture(),
        "kubeconfig": str(instance.kubeconfig),
        "serverImage": f"{instance.registry}/{TOOL_IMAGE}@{base}",
        "serverCommand": server.command,
        "serverArgs": server.args,
        "serverEnv": [f"{name}={value}" for name, value in server.env.items()],
        "serverHostPaths": server.host_paths,
        "gpuCount": 1 if on_gpu else 0,
        # A small request and a wide limit: the laptop's processors are shared with the platform itself.
        "cpu": "1" if on_gpu else "100m",
        "cpuLimit": str(processors),
        "memory": server.memory,
    }


def model_server(gpus: Gpus | None = None) -> servers.ServerEnvironment:
    """Return the server of these GPUs; without any, the one on the CPU that fits this machine, and say why.

    It is installed where it is not yet.
    """
    if gpus:
        return servers.ensure("vllm-cuda", cache_root(), uv_program(), indented, gpus)
    wanted = os.environ.get("MODELCAR_SERVER") or "auto"
    free_memory, free_disk = psutil.virtual_memory().available, shutil.disk_usage(cache_root()).free
    kind, reason = servers.choose(wanted, free_memory, free_disk, cache=cache_root())
    indented(f"model server: {kind} ({reason})")
    return servers.ensure(kind, cache_root(), uv_program(), indented)


def uv_program() -> Path:
    """Return uv, which `make` has put beside the environment or which is on PATH."""
    found = uv.find()
    if not found:
        raise refuse("uv", "not on PATH", allowed="uv, which `make` installs", fix="run `make up`")
    return found


def up(instance: Instance, in_kind: str = "") -> None:
    """Bring everything up, ask the model one question and print the summary.

    Args:
        instance: the platform.
        in_kind: 1, or a name: a cluster that is made by kind takes the embedded one's place.

    Raises:
        InputError, PlatformError, PulumiError: with a message that is meant for the user.
    """
    phases = Phases()
    anew = start_kind(instance, phases, in_kind)
    tools, own = prepare(instance, phases)
    with phases.time("pulumi up"), stack.only_run(indented):
        stack.select(instance, tools)
        for line in stack.recover(instance, tools):
            indented(line)
        # What a cluster or a registry had that is no more is still in the stack's state.
        stack.deploy(instance, tools, *(["--refresh"] if anew else []))
    outputs = stack.outputs(instance, tools)
    settings = stack_settings()
    kubeconfig, context = settings.get("kubeconfig"), settings.get("kubeContext")
    if not own:
        kubeconfig = str(instance.kubeconfig)
    api = ask.core_api(kubeconfig, context)

    def reached(pod: ask.ServedPod, namespace: str, *, forwards: bool) -> AbstractContextManager[str]:
        if forwards:
            return own_cluster.forwarded(pod, namespace, kubeconfig, context, tools)
        return nullcontext(f"http://{pod.address}:{pod.port}")

    served = []
    for name, told in outputs["models"].items():
        if _is_idle(settings, name):
            indented(f"{name}: idle; `make wake` lets it serve")
            continue
        namespace = told["namespace"]
        # A forwarded port ends inside of the pod, where no NetworkPolicy keeps it out.
        forwards = own or bool(_setting(settings, name, "ingress"))

        def answers(pod: ask.ServedPod, namespace: str = namespace, forwards: bool = forwards) -> bool:
            with reached(pod, namespace, forwards=forwards) as url:
                return ask.is_healthy(url)

        with phases.time("server"), working("   waiting for the model server"):
            pod = ask.await_served(api, namespace, told["serviceName"], answers, SERVER_SECONDS)
        with phases.time("request"), reached(pod, namespace, forwards=forwards) as url:
            key = pod.environment.get("VLLM_API_KEY")
            answer = ask.ask(url, told["servedModelName"], key=key)
        endpoint = f"kubectl -n {namespace} port-forward pod/{pod.name} {pod.port}" if forwards else url
        served.append({"outputs": told, "answer": asdict(answer), "pod": asdict(pod)})
        print_served(told, pod, answer, endpoint)
    print_times(phases)
    evidence = {"outputs": outputs, "models": served, "seconds": phases.seconds}
    replace_file(instance.state / "summary.json", (json.dumps(evidence, indent=1) + "\n").encode())


def _is_idle(settings: dict[str, Any], name: str) -> bool:
    return str(_setting(settings, name, "idle")).lower() == "true"


def _setting(settings: dict[str, Any], name: str, key: str) -> Any:
    """Return what a model is told, by its entry or by the stack; None where neither says it."""
    entry = next((one for one in stack_file.models_of(settings) if one.get("name") == name), {})
    return entry.get(key, settings.get(key))


def print_served(outputs: dict[str, Any], pod: ask.ServedPod, answer: ask.Answer, endpoint: str) -> None:
    """Print what was served, and from where."""
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
        ("endpoint", f"{endpoint}/v1/completions" if "://" in endpoint else endpoint),
        ("pod", f"{pod.name}, uid {pod.user}, ready {pod.ready - pod.created:.0f} s after it was made"),
        ("weights", f"at /mnt/models, {_way(pod)}"),
        ("", offline),
    ]
    _print_rows(rows)


def _way(pod: ask.ServedPod) -> str:
    """Return how the weights came into a pod."""
    if not pod.init_containers:
        return "an image volume: one container"
    injected = f"init containers {list(pod.init_containers)}, sidecars {list(pod.sidecars)}"
    return f"injected by KServe: {injected}"


def print_times(phases: Phases) -> None:
    """Print how long each phase took."""
    rows = [("time", f"{seconds:7.1f} s  {name}") for name, seconds in phases.seconds.items()]
    rows += [("time", f"{sum(phases.seconds.values()):7.1f} s  in all")]
    _print_rows(rows)


def _print_rows(rows: list[tuple[str, str]]) -> None:
    say("")
    for name, value in rows:
        say(f"{name:>12}  {value}")
    sys.stdout.flush()
