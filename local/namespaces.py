"""Whether this machine can run the embedded platform: Linux, root, and namespaces of its own."""

from __future__ import annotations

import os
import subprocess
import sys

from local.debian import find_debian
from local.tool_list import tools_folder
from modelcar.errors import InputError, refuse

#: What the platform's first process is started with, after the program `unshare`.
UNSHARE = ("--pid", "--mount", "--net", "--fork", "--propagation", "private")


def require() -> None:
    """Check that the embedded platform can be started, before anything is downloaded or built for it.

    Raises:
        InputError: the system is another one, the user is not root, or the kernel lets it have no namespaces.
    """
    for problem in (_system(), _user(), _namespaces()):
        if problem is not None:
            raise problem


def _system() -> InputError | None:
    if sys.platform == "linux":
        return None
    return refuse(
        "system",
        sys.platform,
        allowed="Linux: the embedded platform runs a real kubelet in namespaces of its own",
        fix="use a Linux machine or a virtual one, or the dev container (.devcontainer/) on Docker",
    )


def _user() -> InputError | None:
    if os.geteuid() == 0:
        return None
    return refuse(
        "user",
        f"uid {os.geteuid()}",
        allowed="root: the embedded platform runs a real kubelet in namespaces of its own",
        fix="run `sudo make up`; or, with Docker and kind, `make up KIND=1`; or set modelcar:kubeContext and "
        "modelcar:registry in Pulumi.local.yaml, for a cluster and registry that you have "
        "(docs/local-stack.md)",
    )


def _namespaces() -> InputError | None:
    unshare = find_debian("unshare", tools_folder() / "debian")
    if unshare is None:  # unpacked later: nothing can be asked yet
        return None
    nothing = (str(unshare), "--version")
    tried = subprocess.run(
        [str(unshare), *UNSHARE, *nothing], capture_output=True, text=True, check=False, cwd="/"
    )
    if tried.returncode == 0:
        return None
    said = tried.stderr.strip().splitlines()
    return refuse(
        "namespaces",
        f"root has none of its own here ({said[-1] if said else f'exit status {tried.returncode}'})",
        allowed="a machine, or a container with --privileged, in which root makes namespaces",
        fix="start the container with `--privileged`, or run it on the machine itself",
    )
