"""`make coldstart`: how long models of several sizes take to be served here, phase by phase, and why.

On a platform of its own, which is removed afterwards: nothing of it is in any cache, and nothing stays.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import httpx

from components.cluster.access import JSON, POLL, Cluster
from components.cluster.pods import is_ready
from components.config import loading as stack_settings
from components.config.settings import Settings
from components.manifests.gitops import manifests
from components.manifests.service import CONTAINER
from local import platform, state_folder, up
from local.ask import PROMPT, is_healthy
from local.cold_start_report import Run
from local.forecast import GB
from local.instance import COLD_START, Instance, load, only_run
from local.page_cache import settle
from local.random_weights import write_model
from local.tool_list import Progress
from local.tools import Toolbox
from modelcar import locking
from modelcar.base import read_base
from modelcar.image import modelcar_image
from modelcar.manifest import Image
from modelcar.oci_layout import require_space
from modelcar.progress import working
from modelcar.push import add_image, push_layers
from modelcar.registry import Target
from modelcar.tiny_model import make_tiny_model
from operations.cold_start import log_times, pulled

T = TypeVar("T")

NAMESPACE, SERVICE = "coldstart", "m"
#: GB.
SIZES = (0.25, 0.5, 1.0, 2.0)
#: Copies of a model while it is measured: files, layers, registry, pulled blobs, unpacked layers.
COPIES = 5
#: Reads the whole model, as a server does that loads it, and answers then.
READER = [
    "sh",
    "-c",
    "cat /mnt/models/*.safetensors > /dev/null && mkdir -p /tmp/www && echo ok > /tmp/www/health"
    " && exec httpd -f -p 8080 -h /tmp/www",
    "reader",
]
PATIENCE = 900.0
#: What a stack has where it says nothing.
PLACEMENT = "servingRuntime"
#: Seconds between two looks at what is timed here.
TICK = 0.02


def measure(
    tools: Toolbox,
    progress: Progress,
    sizes: Sequence[float] = SIZES,
    *,
    own_server: bool = True,
    placements: Sequence[str] = (PLACEMENT,),
) -> list[Run]:
    """Measure each size's first start and its second.

    Args:
        tools: of the platform.
        progress: told what happens.
        sizes: of made-up models, in GB.
        own_server: also start this machine's model server (vLLM where it fits) with the tiny model.
        placements: each size is served by each of these in turn.

    Raises:
        InputError: the disk has too little room, or another measurement is under way.
        PlatformError: the platform does not come up, or a model is not served.
    """
    with only_run(COLD_START):
        return _measure(tools, progress, sizes, own_server=own_server, placements=placements)


def _measure(
    tools: Toolbox,
    progress: Progress,
    sizes: Sequence[float],
    *,
    own_server: bool,
    placements: Sequence[str],
) -> list[Run]:
    instance = load(COLD_START)
    remove(instance, progress)
    state_folder.make(instance.state)
    try:
        require_space(
            instance.state, round(max(sizes) * GB) * COPIES, f"{COPIES} copies of the largest model"
        )
        platform.up(instance, tools, progress)
        up.write_platform_settings(instance)
        bench = _Bench(instance, tools, progress)
        bench.series(0.001, PLACEMENT)  # pulls the server's image, and starts what starts once
        runs = [run for size in sizes for placement in placements for run in bench.series(size, placement)]
        if own_server:
            runs += [run for placement in placements for run in bench.series(None, placement)]
    finally:
        remove(instance, progress)
    return runs


def remove(instance: Instance, progress: Progress) -> None:
    """Stop the platform of a measurement, and remove all of it."""
    platform.down(instance, progress)
    state_folder.remove(instance.state)


class _Bench:
    """The platform, and the models that are served on it."""

    def __init__(self, instance: Instance, tools: Toolbox, progress: Progress) -> None:
        self.instance, self.tools, self.progress = instance, tools, progress
        self.project = instance.state / "project"
        self.blobs = instance.state / "containerd/io.containerd.content.v1.content/blobs/sha256"
        settings = self._settings("m", READER)
        self.architecture, self.cluster = settings.architecture, Cluster.of(settings)
        platform.kubectl(instance, tools, "create", "namespace", NAMESPACE)

    def series(self, gb: float | None, placement: str) -> list[Run]:
        """Serve a model for the first time, and again; the tiny one by this machine's server where None."""
        name = "tiny" if gb is None else f"m{round(gb * 1000)}"
        name += "" if placement == PLACEMENT else f"-{placement.lower()}"
        with working(f"   {name}: making and pushing it"):
            image = self._push(name, gb)
        settings = self._settings(name, READER if gb is not None else None, placement)
        server = "reader" if gb is not None else "its own server"
        server += "" if placement == PLACEMENT else f", {placement}"
        runs = []
        for state in ("first", "warm"):
            settle()
            self.progress(f"── {name}, {state} start")
            with working("   waiting until it is served, and gone again"):
                runs.append(self._start(settings, image, Run(gb or 0.0, state, server)))
        return runs

    def _push(self, name: str, gb: float | None) -> Image:
        weights = self.instance.state / "weights"
        if gb is None:
            make_tiny_model(weights)
        else:
            # Of this run alone: what a former one left anywhere would not be its first start.
            write_model(weights, round(gb * GB), 8, seed=time.time_ns() % 2**31)
        description = locking.Description(folder=str(weights))
        lock, _ = locking.lock_model(
            name, description, locking.resolve(description, self.project), self.project
        )
        image = modelcar_image(lock, read_base(self.architecture))
        target = Target(f"{self.instance.registry}/models", name, insecure=True)
        push_layers(image, locking.layout_path(self.project, name), target)
        add_image(image, target)
        shutil.rmtree(weights)
        shutil.rmtree(locking.layout_path(self.project, name))
        return image

    def _settings(self, model: str, server: list[str] | None, placement: str = PLACEMENT) -> Settings:
        # The reader takes no GPU; this machine's own server takes what it was chosen for.
        own = json.loads(self.instance.settings_file.read_text()).get("gpuCount", 0)
        values: dict[str, Any] = {
            "platformFile": str(self.instance.settings_file),
            "namespace": NAMESPACE,
            "serviceName": SERVICE,
            "model": model,
            "gpuCount": "0" if server else str(own),
            "sharedMemory": "1Gi",
            "egress": json.dumps({"restrict": False}),
            "rollout": "Recreate",
            "placement": placement,
        }
        if server:
            none = dict.fromkeys(("serverArgs", "serverEnv", "serverHostPaths"), "[]")
            values |= {**none, "serverCommand": json.dumps(server), "memory": "256Mi", "sharedMemory": "16Mi"}
        return stack_settings.load({f"modelcar:{key}": value for key, value in values.items()}, self.project)

    def _start(self, settings: Settings, image: Image, run: Run) -> Run:
        documents = json.loads(json.dumps(list(manifests(settings, self.project).values())))
        platform.kubectl(self.instance, self.tools, *platform.APPLY, "-f", "-", documents=documents)
        try:
            return self._timed(settings, image, run)
        finally:
            there = (
                "-n",
                NAMESPACE,
                "delete",
                "--ignore-not-found",
                "--cascade=foreground",
                "--timeout=120s",
            )
            for kind in ("inferenceservice", "servingruntime"):
                platform.kubectl(self.instance, self.tools, *there, kind, SERVICE)
            self._await(lambda: True if not self._pods() else None, POLL)

    def _pods(self) -> list[JSON]:
        found: list[JSON] = (self.cluster.get(f"/api/v1/namespaces/{NAMESPACE}/pods") or {}).get(
            "items"
        ) or []
        return found

    def _timed(self, settings: Settings, image: Image, run: Run) -> Run:
        self._await(lambda: next(iter(self._pods()), None))
        made = time.time()
        pod = self._await(lambda: next((one for one in self._pods() if one["spec"].get("nodeName")), None))
        name, scheduled = str(pod["metadata"]["name"]), time.time()
        downloading = self._download(name, image) if run.state == "first" else 0.0
        address = self._await(lambda: next((one["status"].get("podIP") for one in self._pods()), None))
        self._await(lambda: is_healthy(f"http://{address}:{settings.server_port}") or None)
        loaded = time.time()
        self._await(lambda: True if any(is_ready(one) for one in self._pods()) else None)
        ready = time.time()
        _first_token(f"http://{address}:{settings.server_port}", settings.model_name, reader=run.gb > 0)
        answered = time.time()
        whole, _ = pulled(self._events(name), f"{settings.registry}/{settings.repository}@{image.digest}")
        times = log_times(self.cluster.logs(NAMESPACE, name, CONTAINER, None, stamped=True))
        if times is None or whole is None:
            raise platform.PlatformError(f"{name} serves, and its log or events do not say since when")
        began, there = (stamp.timestamp() for stamp in times)
        pull = min(whole, downloading)
        return replace(
            run,
            schedule=scheduled - made,
            pull=pull,
            unpack=whole - pull,
            start=max(0.0, began - scheduled - whole),
            link=there - began,
            load=max(0.0, loaded - there),
            probe=ready - loaded,
            first_token=answered - ready,
        )

    def _download(self, pod: str, image: Image) -> float:
        """Return the seconds from the pull's begin until the last blob is on the node."""
        wanted = [self.blobs / layer.digest.removeprefix("sha256:") for layer in image.layers]
        self._await(
            lambda: next(
                (
                    event
                    for event in self._events(pod)
                    if event.get("reason") == "Pulling" and image.digest in event["message"]
                ),
                None,
            )
        )
        began = time.time()
        self._await(lambda: True if all(path.exists() for path in wanted) else None)
        return time.time() - began

    def _events(self, pod: str) -> list[JSON]:
        path = f"/api/v1/namespaces/{NAMESPACE}/events"
        found = self.cluster.get(path, fieldSelector=f"involvedObject.name={pod}") or {}
        items: list[JSON] = found.get("items") or []
        return items

    @staticmethod
    def _await(look: Callable[[], T | None], pause: float = TICK) -> T:
        deadline = time.monotonic() + PATIENCE
        while (found := look()) is None:
            if time.monotonic() > deadline:
                raise platform.PlatformError(f"a start takes longer than {PATIENCE:.0f} s")
            time.sleep(pause)
        return found


def _first_token(url: str, model: str, *, reader: bool) -> None:
    """Ask for one token; the reader has none, and answers anything."""
    if reader:
        httpx.get(f"{url}/health", timeout=60, trust_env=False).raise_for_status()
        return
    body = {"model": model, "prompt": PROMPT, "max_tokens": 1}
    httpx.post(f"{url}/v1/completions", json=body, timeout=600, trust_env=False).raise_for_status()
