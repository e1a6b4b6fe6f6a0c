"""The platform, and a Pulumi project of the report's own on it: committed stack files are never written to.

Each model has a stack and a namespace. Only one of them has a pod at a time, as there may be one GPU only.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import yaml

from components.cluster.access import JSON, Cluster
from components.cluster.pods import is_ready, pods_of
from components.config.cluster import DestinationSettings
from components.config.loading import load as load_settings
from components.config.settings import Settings
from local import direct, platform, stack
from local.foreground import run_to_end
from local.gpu import Gpus
from local.gpu_report.bare import TICK
from local.gpu_report.children import Children, Done, Failed, last_words
from local.gpu_report.load import Server
from local.gpu_report.runner import Say
from local.instance import PROJECT, Instance, load, state_root
from local.preview import PARTS
from local.tools import Toolbox, collect
from modelcar.lock import Lock, lock_path
from modelcar.lock_reader import read_lock
from modelcar.made_up import size_of
from modelcar.oci_layout import replace_file

T = TypeVar("T")

#: Of the platforms' state.
FOLDER = "gpu-report"
SERVICE = "measured"


@dataclass(frozen=True)
class Model:
    """A model that is made up. like: whose dimensions it has."""

    like: str

    @property
    def name(self) -> str:
        """What it is locked as."""
        return f"made-up-{self.like}"

    @property
    def size(self) -> int:
        """Bytes of its weights."""
        return size_of(self.like)

    @property
    def stack(self) -> str:
        """Its stack, and a part of its namespace, which may have no dots."""
        return self.like.replace(".", "-")


#: Tokens of prompt and answer together, as the figures of docs/operations/cold-start.md have it.
WINDOW = 4096
#: Seconds that a start may take; its step's bound ends it before.
START = 480


class Site:
    """Where the report's models are made, delivered and served."""

    def __init__(self, gpus: Gpus | None, say: Say) -> None:
        self.gpus, self.say = gpus, say
        self.folder = state_root() / FOLDER
        self.project = self.folder / "project"
        self.backend = self.project / ".state"
        self.children = Children(self.folder / "logs")
        self.instance: Instance = load("local")
        self.kernels = self.folder / "kernels"

    def begin(self) -> None:
        """Note what was there before the report, or before the first part of one that is made in parts."""
        if not self._before.exists():
            before = {
                "up": platform.supervisor(self.instance) is not None,
                "data": self.instance.state.exists() or (state_root() / "pulumi").exists(),
            }
            replace_file(self._before, json.dumps(before).encode())

    @property
    def _before(self) -> Path:
        return self.folder / "before.json"

    @cached_property
    def tools(self) -> Toolbox:
        """The programs that pulumi and the platform need; found, or built where they are not there."""
        return collect(lambda line: self.say(f"   {line}"))

    # --- the platform -----------------------------------------------------------------------------

    def local(self, name: str, *arguments: str, check: bool = True) -> Done:
        """Run a command of `python -m local`, which is what make's targets run."""
        return self.children.run(
            name, [sys.executable, "-m", "local", *arguments], folder=PROJECT, check=check
        )

    def ready(self) -> None:
        """Have the platform up, the project there, and no pod but the report's on a GPU.

        Raises:
            PlatformError: it does not come up.
            Failed: the local stack's model cannot be removed.
        """
        direct.reach(self.instance)
        if platform.supervisor(self.instance) is None or not self.instance.settings_file.exists():
            self.local("platform", "platform")
        if not (self.project / "Pulumi.yaml").exists():
            self.backend.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            link = self.project / part
            if part != "modelcar" and not link.is_symlink():
                link.symlink_to(PROJECT / part)
        ignored = shutil.ignore_patterns("data", "__pycache__")
        shutil.copytree(PROJECT / "modelcar", self.project / "modelcar", ignore=ignored, dirs_exist_ok=True)
        if self.gpus and self._others_serve():
            self.say("   the local stack's model makes room; `make up` serves it again")
            self.local("make-room", "pulumi", "destroy", "--yes", "--skip-preview", "--stack", stack.STACK)

    def local_serves(self) -> bool:
        """Tell whether the platform runs, and `make up` has a model on it."""
        try:
            return platform.supervisor(self.instance) is not None and self._others_serve()
        except platform.PlatformError:
            return False

    def _others_serve(self) -> bool:
        text = platform.kubectl(self.instance, self.tools, "get", "inferenceservices", "-A", "-o", "json")
        ours = {namespace(name) for name in self.stacks()}
        return any(one["metadata"]["namespace"] not in ours for one in json.loads(text)["items"])

    def finish(self) -> None:
        """Remove what the report has made, and stop the platform where the report has started it.

        A platform that was there before keeps the images, which `make clean` removes.
        """
        before = json.loads(self._before.read_text())
        if platform.supervisor(self.instance) is not None:
            names = [namespace(name) for name in self.stacks()]
            if names:
                with suppress(platform.PlatformError):
                    gone = ("delete", "namespace", "--ignore-not-found", "--timeout=30s", *names)
                    platform.kubectl(self.instance, self.tools, *gone)
        if not before["data"]:
            self.local("clean", "clean", check=False)
        elif not before["up"]:
            self.local("down", "down", check=False)
        self._before.unlink()
        for name in ("project", "weights", "unpacked", "scratch", "pods"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    @property
    def registry(self) -> str:
        """HOST/PATH that images are pushed to."""
        return str(self._platform_says("registry"))

    @property
    def architecture(self) -> str:
        """The images' own, as OCI calls it."""
        return str(self._platform_says("architecture"))

    def _platform_says(self, key: str) -> Any:
        return json.loads(self.instance.settings_file.read_text())[key]

    def platform_cluster(self) -> Cluster:
        """Return the platform's API server, whatever the stack."""
        return Cluster.of(DestinationSettings(kubeconfig=str(self.instance.kubeconfig)))

    def server_env(self, *more: str) -> list[str]:
        """Return the server's variables as the platform has them, and more."""
        return [*self._platform_says("serverEnv"), *more]

    # --- the project ------------------------------------------------------------------------------

    @cached_property
    def variables(self) -> dict[str, str]:
        """The environment of Pulumi and of the operations."""
        return {
            **os.environ,
            **stack.environment(self.instance, self.tools),
            "PULUMI_BACKEND_URL": self.backend.as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "",
        }

    def stacks(self) -> list[str]:
        """Return the names of the stacks that are configured here."""
        return sorted(
            path.name.split(".", 1)[1].removesuffix(".yaml") for path in self.project.glob("Pulumi.*.yaml")
        )

    def configure(self, name: str, model: Model, **own: Any) -> None:
        """Write a stack's settings: the platform's, what figures of a GPU need to be alike, and its own."""
        values: dict[str, Any] = {
            "platformFile": str(self.instance.settings_file),
            "model": model.name,
            "namespace": namespace(name),
            "serviceName": SERVICE,
            "gpuCount": 1 if self.gpus else 0,
            "rollout": "Recreate",
            "startTimeoutSeconds": START,
            "kernels": "off",  # starts of all kinds compile, but for those that say otherwise
            # Nobody asks when a pod goes.
            "termination": {"gracePeriodSeconds": 60, "preStopSeconds": 0, "drainSeconds": 0},
        }
        if self.gpus:
            args = [one for one in self._platform_says("serverArgs") if "max-model-len" not in one]
            values |= {"serverArgs": args, "vllm": {"maxModelLen": WINDOW}}
        values |= own
        document = {"config": {f"modelcar:{key}": value for key, value in values.items()}}
        (self.project / f"Pulumi.{name}.yaml").write_text(yaml.safe_dump(document))

    def settings(self, name: str) -> Settings:
        """Return a stack's settings as the program has them."""
        config = yaml.safe_load((self.project / f"Pulumi.{name}.yaml").read_text())["config"]
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}
        return load_settings(texts, self.project)

    def pulumi(self, log: str, *arguments: str, check: bool = True) -> Done:
        """Run Pulumi on a stack of the report's."""
        command = [self.tools["pulumi"], *arguments, "--non-interactive", "--color=never"]
        return self.children.run(log, command, folder=self.project, env=self.variables, check=check)

    def select(self, name: str) -> None:
        """Have the stack, and put right what a killed run left of it."""
        self.pulumi(f"{name}-select", "stack", "select", name, "--create")

        def run(*arguments: str) -> str:
            command = [self.tools["pulumi"], *arguments, "--non-interactive"]
            done = run_to_end(command, cwd=self.project, env=self.variables, capture_output=True)
            if done.returncode:
                raise Failed(f"pulumi {' '.join(arguments)}: {done.stderr.strip()}")
            return done.stdout

        for line in stack.recover_stack(self.instance, run, self.backend, name):
            self.say(f"   {line}")

    def up_command(self, name: str) -> list[str]:
        """Return the command that deploys a stack."""
        return [
            self.tools["pulumi"],
            "up",
            "--yes",
            "--skip-preview",
            "--stack",
            name,
            "--non-interactive",
            "--color=never",
        ]

    def up(self, name: str, log: str, *, check: bool = True) -> Done:
        """Deploy a stack."""
        return self.children.run(
            log, self.up_command(name), folder=self.project, env=self.variables, check=check
        )

    def scale_down(self, name: str) -> None:
        """Let a stack have no pod, whatever it serves."""
        path = self.project / f"Pulumi.{name}.yaml"
        document = yaml.safe_load(path.read_text())
        document["config"]["modelcar:idle"] = True
        path.write_text(yaml.safe_dump(document))
        self.up(name, f"{name}-idle")
        self.gone(name)

    def destroy(self, name: str) -> None:
        """Remove a stack's resources."""
        self.pulumi(f"{name}-destroy", "destroy", "--yes", "--skip-preview", "--stack", name)
        (self.project / f"Pulumi.{name}.yaml").unlink(missing_ok=True)

    def modelcar(self, log: str, *arguments: str) -> Done:
        """Run a command of `python -m modelcar` in the project."""
        command = [sys.executable, "-m", "modelcar", "--project", str(self.project), *arguments]
        return self.children.run(log, command, folder=PROJECT)

    def operate(self, log: str, operation: str, name: str, *, check: bool = True) -> Any:
        """Run a command of `python -m operations` on a stack, and return its JSON."""
        command = [sys.executable, "-m", "operations", "--project", str(self.project)]
        done = self.children.run(
            log,
            [*command, operation, "--stack", name, "--json"],
            folder=PROJECT,
            env=self.variables,
            check=check,
        )
        found = re.search(r"^\{$", done.said, re.MULTILINE)  # notes may come before it, and after it
        if found is None:
            raise Failed(f"{operation} told no figures: {last_words(done.said)}")
        return json.JSONDecoder().raw_decode(done.said, found.start())[0]

    # --- models on this machine -------------------------------------------------------------------

    def weights(self, model: Model) -> Path:
        """Return the folder that a model is made in."""
        return self.folder / "weights" / model.like

    def lock(self, model: Model) -> Lock:
        """Return a model's lock."""
        return read_lock(lock_path(self.project, model.name))

    def unpacked(self, model: Model) -> Path:
        """Return a folder with the model's files as the node has unpacked them: the very ones that pods read.

        Raises:
            Failed: the node does not have them.
        """
        folder = self.folder / "unpacked" / model.like
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        store = self.instance.state / "containerd"
        for file in self.lock(model).files:
            places = [
                path
                for pattern in ("fs/models", "models")
                for path in store.glob(f"io.containerd.snapshotter.v1.*/snapshots/*/{pattern}/{file.path}")
                if path.stat().st_size == file.size
            ]
            if not places:
                raise Failed(f"the node has no unpacked {file.path} of {model.like}")
            target = folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(max(places, key=lambda path: path.stat().st_mtime))
        return folder

    # --- pods -------------------------------------------------------------------------------------

    def cluster(self, name: str) -> Cluster:
        """Return the API server, for looks at a stack's pods."""
        return Cluster.of(self.settings(name))

    def pods(self, cluster: Cluster, name: str) -> list[JSON]:
        """Return a stack's pods, but those that are on their way out."""
        return pods_of(cluster, namespace(name), SERVICE)

    def ready_pod(self, name: str) -> JSON:
        """Return the pod that serves.

        Raises:
            Failed: none does.
        """
        ready = [pod for pod in self.pods(self.cluster(name), name) if is_ready(pod)]
        if not ready:
            raise Failed(f"no pod of stack {name} is ready")
        return ready[0]

    def keep_log(self, name: str, pod: JSON) -> None:
        """Keep what the pod's server has said beside the logs of commands, before it was restarted too."""
        told, cluster = pod["metadata"]["name"], self.cluster(name)
        for former, suffix in ((True, "-before"), (False, "")):
            box = "kserve-container"
            text = cluster.logs(namespace(name), told, box, None, stamped=True, previous=former)
            if text:
                (self.children.logs / f"{name}-{told}{suffix}.log").write_text(text)

    def gone(self, name: str) -> None:
        """Wait until no pod of a stack is left, so that its GPU is free."""
        cluster, path = self.cluster(name), f"/api/v1/namespaces/{namespace(name)}/pods"
        self.wait(lambda: True if not (cluster.get(path) or {}).get("items") else None, 0.2)

    def server(self, name: str, pod: Mapping[str, Any]) -> Server:
        """Return where a pod is asked: at its own address, as what stands before it would."""
        settings = self.settings(name)
        url = f"http://{pod['status']['podIP']}:{settings.server_port}"
        return Server(url, settings.model_name, self.full)

    def bare_server(self, name: str, url: str) -> Server:
        """Return the same server where it runs without a pod."""
        return Server(url, self.settings(name).model_name, self.full)

    @property
    def full(self) -> bool:
        """Whether vLLM serves here, and not the small server of machines that it does not fit on."""
        return any("vllm" in str(part) for part in self._platform_says("serverCommand")[1:])

    def keep_pod(self, name: str, pod: JSON) -> None:
        """Keep what a pod is, for a server that runs without one."""
        folder = self.folder / "pods"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(pod, indent=1))

    def kept_pod(self, name: str) -> JSON:
        """Return what was kept."""
        found: JSON = json.loads((self.folder / "pods" / f"{name}.json").read_text())
        return found

    @staticmethod
    def wait(look: Callable[[], T | None], pause: float = TICK) -> T:
        """Wait until there is something; the step's bound ends it otherwise."""
        while (found := look()) is None:
            time.sleep(pause)
        return found


def namespace(name: str) -> str:
    """Return a stack's namespace."""
    return f"gpu-report-{name}"
