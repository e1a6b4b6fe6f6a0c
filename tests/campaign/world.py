"""What faults are tried on: a platform of the campaign's own, a stack that is hit, and one that serves on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import yaml

from local import platform, stack, state_folder
from local.instance import CAMPAIGN, PROJECT, Instance, load, state_root
from local.oci_push import digest_of
from local.plan import TOOL_IMAGE
from local.preview import scratch_project
from local.processor import architecture
from local.tool_list import Progress
from local.tools import collect
from modelcar import locking
from modelcar.base import read_base
from modelcar.image import modelcar_image
from modelcar.lock import Lock
from modelcar.tiny_model import make_tiny_model
from tests.campaign.front import Rules

#: The stack that is hit, and the one whose pod has to answer all the time; their namespaces too.
SUBJECT, BYSTANDER = "subject", "bystander"
#: A server that starts at once: busybox httpd. What faults do to a delivery does not depend on what serves.
PAGES = "mkdir -p /tmp/www && echo ok > /tmp/www/health && ln -sfn /mnt/models /tmp/www/models"
SERVER = ["sh", "-c", f"{PAGES} && exec httpd -f -p 8080 -h /tmp/www", "server"]
#: No operation on a tiny model takes longer, in seconds, whatever went wrong.
LONGEST = 420.0


class World:
    """The platform, the project and the two stacks."""

    def __init__(self, say: Progress) -> None:
        self.say = say
        self.instance: Instance = load(CAMPAIGN)
        self.rules = Rules(self.instance.state / "front" / "rules.json")
        front = (sys.executable, str(Path(__file__).with_name("front.py")), str(self.rules.path))
        self.tools = replace(collect(say), registry_front=front)
        self.folder = self.instance.state / "project"
        self.model = 0
        #: By stack: the digest of the image that its model's lock makes.
        self.digests: dict[str, str] = {}

    # --- coming and going ---------------------------------------------------------------------------

    def start(self) -> None:
        """Bring up the platform, an empty subject, and the bystander with its model served."""
        end_runs(self.instance)
        state_folder.make(self.instance.state)
        self.rules.path.parent.mkdir(parents=True, exist_ok=True)
        self.rules.set()
        platform.up(self.instance, self.tools, self.say)
        scratch_project(f"{CAMPAIGN}/project")
        (self.folder / "modelcar").unlink()
        ignored = shutil.ignore_patterns("data", "__pycache__")
        shutil.copytree(PROJECT / "modelcar", self.folder / "modelcar", ignore=ignored)
        for namespace in (SUBJECT, BYSTANDER):  # of a campaign that was killed
            self.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait")
        for name in (SUBJECT, BYSTANDER):
            self.lock(name)
            self.pulumi("stack", "init", "--stack", name)
        self.pulumi("up", "--yes", "--skip-preview", "--stack", BYSTANDER)

    def stop(self) -> None:
        """Stop everything and remove the platform's data; the journal stays."""
        end_runs(self.instance)
        platform.down(self.instance, self.say)
        state_folder.remove(self.instance.state)

    def reset_subject(self) -> None:
        """Remove the subject in whatever way, and let it be a stack that never had an `up`."""
        end_runs(self.instance)
        for path in self.backend.glob(f".pulumi/locks/organization/*/{SUBJECT}/*"):
            path.unlink()
        for path in self.backend.glob(f".pulumi/stacks/*/{SUBJECT}.json*"):
            path.unlink()
        self.kubectl("delete", "namespace", SUBJECT, "--ignore-not-found", "--wait")
        self.pulumi("stack", "init", "--stack", SUBJECT)
        self.lock(SUBJECT)
        self.pulumi("up", "--yes", "--skip-preview", "--stack", SUBJECT)
        self.pulumi("destroy", "--yes", "--skip-preview", "--stack", SUBJECT)

    def reboot(self) -> None:
        """Stop the platform as a machine is, and start it again with what is on its disk."""
        platform.down(self.instance, lambda _: None)
        self.await_platform()

    def await_platform(self) -> None:
        """Wait until every part of the platform works (again), and the node is ready."""
        platform.up(self.instance, self.tools, lambda _: None)

    # --- models and settings ------------------------------------------------------------------------

    def lock(self, stack_name: str) -> str:
        """Lock a model with weights of its own, let the stack have it, and return its name."""
        name = f"m{self.model + 1:05}"
        image = modelcar_image(self.weigh(name), read_base(architecture()))
        self.digests[stack_name] = image.digest
        self.configure(stack_name, model=name)
        return name

    def weigh(self, name: str) -> Lock:
        """Give a model weights that no model had before, and lock them."""
        self.model += 1
        weights = make_tiny_model(self.folder / "weights" / name, seed=self.model)
        description = locking.Description(folder=str(weights), license="Apache-2.0")
        resolved = locking.resolve(description, self.folder)
        return locking.lock_model(name, description, resolved, self.folder)[0]

    def configure(self, stack_name: str, **own: Any) -> None:
        """Write a stack's settings: those of this platform, and its own."""
        base = digest_of(self.instance.state / "base")
        config = {
            "registry": f"{self.instance.registry}/models",
            "registryInsecure": True,
            "builder": self.instance.builder,
            "architecture": architecture(),
            "kubeconfig": str(self.instance.kubeconfig),
            "serverImage": f"{self.instance.registry}/{TOOL_IMAGE}@{base}",
            "serverCommand": SERVER,
            "gpuCount": 0,
            "cpu": "50m",
            "memory": "64Mi",
            "sharedMemory": "16Mi",
            "startTimeoutSeconds": 90,
            "namespace": stack_name,
            **({} if "models" in own else {"imageName": stack_name, "serviceName": stack_name}),
            **own,
        }
        document = {"config": {f"modelcar:{key}": value for key, value in config.items()}}
        (self.folder / f"Pulumi.{stack_name}.yaml").write_text(yaml.safe_dump(document))

    # --- Pulumi ------------------------------------------------------------------------------------

    @property
    def variables(self) -> dict[str, str]:
        """The environment of every Pulumi command of the campaign."""
        return {
            **os.environ,
            **stack.environment(self.instance, self.tools),
            "PULUMI_BACKEND_URL": self.backend.as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "",
            # --event-log is one of Pulumi's commands for debugging.
            "PULUMI_DEBUG_COMMANDS": "true",
        }

    @property
    def backend(self) -> Path:
        """Folder of Pulumi's backend for files."""
        return self.folder / ".state"

    def state_file(self, name: str = SUBJECT) -> Path:
        """Return the file that a stack's state is in."""
        return next(self.backend.glob(f".pulumi/stacks/*/{name}.json"))

    def pulumi(self, *arguments: str) -> str:
        """Run Pulumi to its end and return what it printed.

        Raises:
            PulumiFailed: with what it said.
        """
        started = self.begin(*arguments)
        if started.wait():
            raise PulumiFailed(f"pulumi {' '.join(arguments)}: {started.said()}")
        return started.printed()

    def begin(self, *arguments: str) -> Run:
        """Start Pulumi and return at once."""
        return Run(self, arguments)

    def recover(self) -> list[str]:
        """Do what `make up` does before it runs Pulumi, and return what it says."""
        return stack.recover_stack(self.instance, self.pulumi, self.backend, SUBJECT)

    # --- the cluster --------------------------------------------------------------------------------

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl as the administrator."""
        return platform.kubectl(self.instance, self.tools, *arguments)

    def objects(self, namespace: str, *kinds: str) -> list[dict[str, Any]]:
        """Return the objects of these kinds in a namespace."""
        text = self.kubectl("-n", namespace, "get", ",".join(kinds), "-o", "json")
        found: list[dict[str, Any]] = json.loads(text)["items"]
        return found

    def pod(self, namespace: str) -> dict[str, Any]:
        """Return the one pod that serves in a namespace."""
        pods = [
            pod for pod in self.objects(namespace, "pods") if not pod["metadata"].get("deletionTimestamp")
        ]
        if len(pods) != 1:
            raise LookupError(f"{len(pods)} pods in {namespace}")
        return pods[0]

    def process(self, service: str) -> psutil.Process | None:
        """Return a process of the platform; None while it does not run."""
        with suppress(OSError, ValueError, psutil.Error):
            return psutil.Process(int((self.instance.pids / f"{service}.pid").read_text()))
        return None

    @contextmanager
    def frozen(self, service: str) -> Iterator[None]:
        """Let a process of the platform stand still."""
        process = self.process(service)
        if process is None:
            raise LookupError(f"{service} does not run")
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)


class PulumiFailed(Exception):
    """Pulumi ended with an error; the message has what it said."""


class Run:
    """One Pulumi command that is under way, with its events as they come."""

    def __init__(self, world: World, arguments: tuple[str, ...]) -> None:
        self.folder = world.instance.state / "runs" / f"{time.monotonic_ns()}"
        self.folder.mkdir(parents=True)
        self.events_file = self.folder / "events"
        events = ["--event-log", str(self.events_file)] if arguments[0] in {"up", "destroy"} else []
        self.started = time.monotonic()
        self.arguments = arguments
        with (self.folder / "out").open("wb") as out, (self.folder / "err").open("wb") as err:
            self.process = psutil.Popen(
                [world.tools["pulumi"], *arguments, *events, "--non-interactive", "--color=never"],
                cwd=world.folder,
                env=world.variables,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def events(self) -> int:
        """Return how many events the engine has written."""
        try:
            return self.events_file.read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0

    def await_more(self, known: int) -> None:
        """Wait until there are more events than are known, or it has ended."""
        until(lambda: self.over() or self.events() > known, LONGEST, 0.01)

    def over(self) -> bool:
        """Tell whether it has ended."""
        return self.process.poll() is not None

    def wait(self, seconds: float = LONGEST) -> int:
        """Wait for its end and return its status; one that never ends is killed, which is a finding.

        Raises:
            TimeoutError: it did not end.
        """
        try:
            return int(self.process.wait(seconds))
        except psutil.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise TimeoutError(
                f"pulumi {' '.join(self.arguments)} did not end in {seconds:.0f} s: {self.said()}"
            ) from None

    def printed(self) -> str:
        """Return what it wrote to standard output."""
        return (self.folder / "out").read_text(errors="replace")

    def said(self) -> str:
        """Return all that it wrote."""
        return self.printed() + (self.folder / "err").read_text(errors="replace")

    def family(self) -> list[psutil.Process]:
        """Return its engine and everything that this started."""
        with suppress(psutil.Error):
            return [self.process, *self.process.children(recursive=True)]
        return []


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def stop_on_sigterm() -> None:
    """Let SIGTERM end the command as Ctrl-C does: whoever ends it, what it started is stopped."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)


def end_runs(instance: Instance) -> None:
    """Kill every process of Pulumi runs of this platform, which nobody waits for any more."""
    for process in stack.processes(instance):
        with suppress(psutil.Error):
            process.kill()


def until(done: Callable[[], bool], seconds: float, interval: float = 0.02) -> bool:
    """Wait until something is so, and tell whether it came to be."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True


def campaign_folder() -> Path:
    """Return where the journal and the report are kept."""
    return state_root() / "campaign-journal"
