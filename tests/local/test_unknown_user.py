"""The server of `dev`'s pods, whose user has no name: torch's CUDA build and vLLM, without a GPU or cluster.

KServe makes the server uid 1010, which no image has in its /etc/passwd, and torch 2.11 asks for the user's
name when vLLM imports it (torch/_inductor/codecache.py, `_HEADER_DIR`). Command and variables are those that
the stack declares, the root file system is read-only as the pod's, and torch is the one of vLLM's image. vLLM
is the CPU build, which imports the same parts of it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from components.config.kserve import MODELCAR_UID
from components.config.model_path import MODEL_PATH
from components.manifests.service import SCRATCH, USER_NAME, container
from local import servers
from local.instance import cache_root
from local.servers.choice import vllm_obstacles
from tests.unit.test_one_pod import dev

#: The variables of vllm/vllm-openai:v0.23.0 itself, from its Dockerfile and that of nvidia/cuda:13.0.2-base:
#: https://github.com/vllm-project/vllm/blob/v0.23.0/docker/Dockerfile
OF_THE_IMAGE = {
    "PATH": "/usr/local/nvidia/bin:/usr/local/cuda/bin:"
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LD_LIBRARY_PATH": "/usr/local/nvidia/lib64:/usr/local/cuda/lib64",
}

#: Seconds for one start; 7 without a name and 21 with one were measured on two cores.
PATIENCE = 240


@pytest.fixture(scope="module")
def server() -> servers.ServerEnvironment:
    """Install vLLM's environment where `make up` has not yet."""
    if lacks := vllm_obstacles():
        pytest.skip("vLLM's CPU build does not run here: " + "; ".join(lacks))
    uv = os.environ.get("UV") or shutil.which("uv") or "uv"
    return servers.ensure("vllm", cache_root(), Path(uv), print)


class Root:
    """A root file system of this machine's programs, the server's environment, and an /etc of its own."""

    def __init__(self, folder: Path, server: servers.ServerEnvironment) -> None:
        self.folder = folder
        self.mounts: list[list[str]] = []
        folder.chmod(0o755)  # pytest lets nobody else in
        self.mount(folder, "/", "--bind")
        for writable in (SCRATCH, "/dev/shm"):
            self.mount(self.at(writable), writable, "--bind")
            self.at(writable).chmod(0o1777)
        # Not this machine's: its passwd file could name the user.
        self.write("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nvllm:x:2000:0::/home/vllm:/bin/sh\n")
        self.write("/etc/group", "root:x:0:\n")
        self.write(f"{MODEL_PATH}/config.json", "{}")
        for path in map(Path, ("/bin", "/sbin", "/lib", "/lib64")):
            if path.is_symlink():
                self.at(path).symlink_to(path.readlink())
            elif path.is_dir():
                self.mount(path, path, "--bind", "-o", "ro")
        own = [path for path in server.host_paths if Path(path).parts[1] not in {"usr", "lib", "lib64"}]
        for folder_of_server in ("/usr", *own):
            self.mount(folder_of_server, folder_of_server, "--bind", "-o", "ro")
        for tree in ("/proc", "/sys"):
            self.mount(tree, tree, "--rbind")
        for device in ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"):
            self.write(device, "")
            self.mounts.append(["mount", "--bind", device, str(self.at(device))])
        # The image's `python3`; what its dynamic loader needs here is this machine's.
        libraries = server.env.get("LD_LIBRARY_PATH", "")
        python = self.write(
            "/python/python3", f'#!/bin/sh\nLD_LIBRARY_PATH={libraries} exec {server.python} "$@"\n'
        )
        python.chmod(0o755)
        self.mounts.append(["mount", "--bind", str(python.parent), str(self.at("/usr/local/bin"))])
        self.mounts.append(["mount", "-o", "remount,bind,ro", str(folder)])

    def at(self, path: str | Path) -> Path:
        """Return where a path of this root is on this machine."""
        return self.folder / str(path).lstrip("/")

    def write(self, path: str, text: str) -> Path:
        self.at(path).parent.mkdir(parents=True, exist_ok=True)
        self.at(path).write_text(text)
        return self.at(path)

    def mount(self, source: str | Path, folder: str | Path, *how: str) -> None:
        self.at(folder).mkdir(parents=True, exist_ok=True)
        self.mounts.append(["mount", *how, str(source), str(self.at(folder))])

    def run(self, variables: dict[str, str], command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command there as KServe's user, in root's group: the image says no other one."""
        script = [shlex.join(mount) for mount in self.mounts]
        script.append(
            f'exec chroot --userspec={MODELCAR_UID}:0 --groups= {shlex.quote(str(self.folder))} env -i "$@"'
        )
        told = [f"{name}={value}" for name, value in {**OF_THE_IMAGE, **variables}.items()]
        return subprocess.run(
            ["unshare", "--mount", "sh", "-ec", "\n".join(script), "sh", *told, *command],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )


def declared() -> tuple[dict[str, str], list[str]]:
    """Return the variables and the command that `dev` declares; the server is asked for its help only."""
    told = container(dev("servingRuntime"))
    return {entry["name"]: entry["value"] for entry in told["env"]}, [*told["command"], "--help"]


def test_vllm_starts_as_a_user_whom_no_passwd_file_names(
    server: servers.ServerEnvironment, tmp_path: Path
) -> None:
    variables, command = declared()
    told = Root(tmp_path, server).run(variables, command)
    assert told.returncode == 0, told.stderr[-3000:]
    assert f"{MODEL_PATH} is there" in told.stdout
    assert "--gpu-memory-utilization" in told.stdout


def test_it_does_not_without_the_name_that_the_program_gives(
    server: servers.ServerEnvironment, tmp_path: Path
) -> None:
    """Else the test above proves nothing, or the name is needed no more: torch 2.13 asks later."""
    variables, command = declared()
    nameless = {name: value for name, value in variables.items() if name not in USER_NAME}
    told = Root(tmp_path, server).run(nameless, command)
    assert told.returncode != 0
    assert "getpwuid(): uid not found: 1010" in told.stderr
