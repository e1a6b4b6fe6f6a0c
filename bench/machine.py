"""A registry, a BuildKit and a containerd of the benchmark's own, with empty stores, and what a run costs."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from local import direct
from local.debian import debian_parts
from local.stack import plugin_variables
from local.tool_list import tools_folder
from local.tools import Toolbox, collect, find_tool
from modelcar.errors import InputError

#: What a machine, a registry or a peer's program can cause; said in words, and the other ways go on.
EXPECTED = (InputError, OSError, RuntimeError, subprocess.SubprocessError, httpx.HTTPError, psutil.Error)
#: buildx's name for the benchmark's BuildKit.
BUILDER = "bench"


@dataclass
class Machine:
    """The running services and where they keep things. registry: HOST:PORT, plain HTTP."""

    folder: Path
    registry: str
    environment: dict[str, str]
    tools: Toolbox
    debian: dict[str, Path]
    processes: list[psutil.Process] = field(default_factory=list)

    @property
    def builder_store(self) -> Path:
        """Where BuildKit keeps its content."""
        return self.folder / "buildkit"

    def run(self, *command: str | Path, cwd: Path | None = None) -> str:
        """Run a command and return its output; raise with what it said where it fails."""
        arguments = [str(part) for part in command]
        result = subprocess.run(
            arguments, cwd=cwd, env=self.environment, capture_output=True, text=True, check=False
        )
        if result.returncode:
            raise RuntimeError(
                f"{' '.join(arguments)[:300]}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"
            )
        return result.stdout

    def digest(self, repository: str, reference: str) -> str:
        """Return the digest that the registry has for a reference."""
        types = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json")
        url = f"http://{self.registry}/v2/{repository}/manifests/{reference}"
        accept = {"Accept": ", ".join(types)}
        found = httpx.head(url, headers=accept, trust_env=False).raise_for_status()
        return str(found.headers["Docker-Content-Digest"])

    def stored(self) -> int:
        """Return the bytes of the registry's store, which keeps each blob once, however often it is sent."""
        return disk_usage(self.folder / "registry")


def toolbox() -> tuple[Toolbox, dict[str, Path]]:
    """Find or build the programs."""
    say: Callable[[str], None] = print
    return collect(say, embedded=False), debian_parts(tools_folder() / "debian", say)


@contextmanager
def machine(folder: Path, tools: Toolbox, debian: dict[str, Path]) -> Iterator[Machine]:
    """Start a registry and a BuildKit in an empty folder; stop them and remove it at the end."""
    folder.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        registry = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = {
        **os.environ,
        **direct.variables(None),
        "PATH": tools.path,
        "BUILDX_CONFIG": str(folder / "buildx"),
        "PULUMI_BACKEND_URL": (folder / "state").as_uri(),
        "PULUMI_CONFIG_PASSPHRASE": "",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        **plugin_variables(tools),
    }
    (folder / "state").mkdir()
    configuration = folder / "registry.yml"
    configuration.write_text(
        f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/registry}}}}\nhttp: {{addr: {registry}}}\n"
    )
    buildkit = [
        tools["buildkitd"] if "buildkitd" in tools.programs else str(tools_folder() / "bin/buildkitd")
    ]
    buildkit += [f"--root={folder}/buildkit", f"--addr=unix://{folder}/buildkitd.sock"]
    buildkit += ["--oci-worker=true", f"--oci-worker-binary={debian['runc']}", "--containerd-worker=false"]
    with (folder / "log").open("wb") as log:
        started = [
            subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            for command in ([str(debian["docker-registry"]), "serve", str(configuration)], buildkit)
        ]
        try:
            made = Machine(folder, registry, environment, tools, debian)
            made.processes = [psutil.Process(process.pid) for process in started]
            base = f"http://{registry}/v2/"
            await_true(lambda: httpx.get(base, trust_env=False).status_code == httpx.codes.OK)
            await_true((folder / "buildkitd.sock").exists)
            address = f"unix://{folder}/buildkitd.sock"
            made.run("buildx", "create", "--name", BUILDER, "--driver", "remote", address)
            yield made
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait(60)
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def empty_node(folder: Path, settings: str = "") -> Iterator[list[str]]:
    """Run a containerd that has nothing in a new folder, its log beside it; yield what asks it.

    settings: more of its configuration.
    """
    folder.mkdir()
    config = folder / "config.toml"
    config.write_text(f'version = 3\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n{settings}')
    address = ("--address", f"{folder}/sock")
    command = [str(find_tool("containerd", print)), "--config", str(config), *address]
    command += ["--root", f"{folder}/root", "--state", f"{folder}/state", "--log-level", "error"]
    ctr = [str(find_tool("ctr", print)), *address]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            await_true(
                lambda: subprocess.run([*ctr, "version"], capture_output=True, check=False).returncode == 0
            )
            yield ctr
        finally:
            process.terminate()
            process.wait(30)


def await_true(condition: Callable[[], bool], seconds: float = 30, pause: float = 0.02) -> None:
    """Wait for a condition; raise TimeoutError when it does not come about."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError, OSError):
            if condition():
                return
        time.sleep(pause)
    raise TimeoutError("a service did not start")


def disk_usage(*folders: Path) -> int:
    """Return the bytes that folders take on disk."""
    total = 0
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for name in names:
                with suppress(OSError):
                    total += (Path(parent) / name).lstat().st_blocks * 512
    return total


@contextmanager
def peak_memory(processes: Sequence[psutil.Process]) -> Iterator[dict[str, int]]:
    """Note the largest resident memory, in bytes, of each program that runs meanwhile below these or us."""
    peaks: dict[str, int] = {}
    done = threading.Event()

    def sample() -> None:
        own = psutil.Process()
        while not done.wait(0.1):
            everyone = [*processes, *own.children(recursive=True)]
            for process in everyone:
                with suppress(psutil.Error):
                    # Not shared pages: what a program has mapped is the kernel's to drop.
                    used = process.memory_info().rss - process.memory_info().shared
                    peaks[process.name()] = max(peaks.get(process.name(), 0), used)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()
