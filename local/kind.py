"""`make up KIND=1`: a cluster of kind's and a registry in Docker, in place of the embedded platform.

Made as kind's page has it (kind.sigs.k8s.io/docs/user/local-registry): for `localhost:PORT`, the registry on
this machine, containerd asks the registry's container. What is made is written down first, so that
`make clean` removes it and nothing else.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from local import state_folder
from local.instance import Instance
from local.processor import architecture
from local.tool_list import Progress, tools_folder
from modelcar.errors import InputError, refuse
from modelcar.oci_layout import replace_file
from modelcar.progress import working

#: Of the cluster where KIND is 1; registry and builder are called after it.
NAME = "modelcar"
PORT_VARIABLE, PORT = "MODELCAR_KIND_PORT", "5001"
REGISTRY_IMAGE = "docker.io/library/registry:3"
#: On the registry's container: the state folder of the checkout that made it.
LABEL = "modelcar.state"


@dataclass(frozen=True)
class Kind:
    """What was made for a state folder.

    name: of the cluster. port: of the registry, on this machine. ready: all of it is made.
    kubeconfig: the cluster's own, so that the user's stays as it is.
    registry: name of its container. builder: name of the one that local/own_cluster.py makes.
    """

    state: str
    name: str
    port: str
    kubeconfig: str
    registry: str
    builder: str
    ready: bool = False

    def write(self) -> None:
        """Write it down."""
        state_folder.make(Path(self.state))
        replace_file(Path(self.state, "kind.json"), (json.dumps(asdict(self)) + "\n").encode())


def read(state: Path) -> Kind | None:
    """Return what was made for a state folder, None where nothing was.

    Raises:
        InputError: what is written down cannot be read.
    """
    file = state / "kind.json"
    try:
        return Kind(**json.loads(file.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise refuse(
            str(file),
            f"cannot be read ({error})",
            allowed="what `make up KIND=…` wrote: which cluster and registry it made",
            fix="make clean, which leaves them in Docker; then, with the NAME that `kind get clusters` "
            "tells, kind delete cluster --name NAME and docker rm --force --volumes NAME-registry",
        ) from None


def settings(state: Path) -> dict[str, Any]:
    """Return the stack's settings that follow from what was made, none where nothing was."""
    made = read(state)
    if made is None:
        return {}
    cluster = {"kubeconfig": made.kubeconfig, "kubeContext": f"kind-{made.name}", "kserve": {"install": True}}
    registry = {"registry": f"localhost:{made.port}/models", "registryInsecure": True}
    # Its nodes are containers on this machine.
    return {**cluster, **registry, "architecture": architecture()}


def beside(own: dict[str, Any]) -> str | None:
    """Return the setting of the stack's own file that names another place to serve, None where none does."""
    return next((key for key in ("kubeContext", "kubeconfig", "registry") if own.get(key)), None)


def up(instance: Instance, word: str, own: dict[str, Any], progress: Progress) -> bool:
    """Make cluster and registry, or what of them is missing, and start what is stopped.

    Returns whether one of the two was made: what the stack had there is gone.

    Args:
        instance: the platform whose place they take.
        word: the value of KIND: 1, or a name for the cluster.
        own: settings of the stack's own file.
        progress: takes a line for each thing that was made.

    Raises:
        InputError: Docker or kind is missing or does not run, a name or the port is somebody else's, or the
            stack or this checkout has a platform already.
    """
    made, name = read(instance.state), NAME if word == "1" else word
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,40}", name):
        raise refuse("KIND", name, allowed="1, or a name of a-z, 0-9, . and -", fix="make up KIND=1")
    if named := beside(own):
        fix = f"make up, without KIND; or: pulumi config rm --stack local modelcar:{named}"
        raise refuse("KIND", f"beside modelcar:{named}", allowed="one place to serve", fix=fix)
    if made is None and (instance.state / "plan.json").exists():
        raise refuse("KIND", "the embedded platform has data here", allowed="one platform", fix="make clean")
    if made and made.name != name:
        raise refuse("KIND", name, allowed=f"{made.name}, which is there", fix="make clean, or name that one")
    _require_programs()
    if made is None:
        state, port = str(instance.state), os.environ.get(PORT_VARIABLE) or PORT
        made = Kind(state, name, port, f"{state}/kind.kubeconfig", f"{name}-registry", f"{name}-kind")
        taken = removes = ""
        if name in _run("kind", "get", "clusters").split():
            taken, removes = f"cluster {name}", f"kind delete cluster --name {name}"
        elif _ours(made) is False:
            taken, removes = f"container {made.registry}", f"docker rm --force {made.registry}"
        if taken:
            fix = f"make up KIND=OTHER-NAME; or, if nobody needs it: {removes}"
            raise refuse(taken, "this checkout did not make it", allowed="a name that is free", fix=fix)
        made.write()
    new_registry = _registry(made, progress)
    new_cluster = _cluster(made, progress)
    networks = _run("docker", "inspect", "--format", "{{json .NetworkSettings.Networks}}", made.registry)
    if "kind" not in json.loads(networks):
        _run("docker", "network", "connect", "kind", made.registry)
    replace(made, ready=True).write()
    return new_registry or new_cluster


def stop(instance: Instance, progress: Progress) -> None:
    """Stop the containers, if there are any; their data stay."""
    if made := _readable(instance, progress):
        _require_programs()
        for container in [*_nodes(made), *([made.registry] if _ours(made) else [])]:
            _run("docker", "stop", container)
        progress(f"cluster {made.name} and its registry stopped")


def remove(instance: Instance, progress: Progress) -> None:
    """Remove the cluster, the registry with its images, and the builder, if they were made here."""
    if made := _readable(instance, progress):
        _require_programs()
        _run("kind", "delete", "cluster", "--name", made.name, "--kubeconfig", made.kubeconfig)
        if _ours(made):
            _run("docker", "rm", "--force", "--volumes", made.registry)
        buildx = tools_folder() / "bin" / "buildx"
        shown = [str(buildx), "inspect", made.builder]
        if buildx.exists() and not subprocess.run(shown, capture_output=True, check=False).returncode:
            _run(str(buildx), "rm", made.builder)
        Path(made.state, "kind.json").unlink()
        progress(f"cluster {made.name} and its registry removed")


def _readable(instance: Instance, progress: Progress) -> Kind | None:
    """Return what was made; where that cannot be read, say so, as the platform is to go all the same."""
    try:
        return read(instance.state)
    except InputError as error:
        progress(f"NOTE: {error}")
        return None


def _require_programs() -> None:
    pages = {"docker": "docs.docker.com/engine/install", "kind": "kind.sigs.k8s.io/docs/user/quick-start"}
    for program, page in pages.items():
        if not shutil.which(program):
            fix = f"install it: https://{page}/ (kind 0.27 or newer)"
            raise refuse(program, "not on PATH", allowed="Docker and kind, for KIND=1", fix=fix)
    try:
        _run("docker", "info", "--format", "{{.ServerVersion}}")
    except InputError as error:
        fix = "start it (sudo systemctl start docker), and let your user reach it (group docker)"
        allowed = "a Docker daemon that answers"
        raise refuse("docker", error.problems[0].value, allowed=allowed, fix=fix) from None


def _registry(made: Kind, progress: Progress) -> bool:
    """Start the registry; return whether it had to be made."""
    if _ours(made):
        _run("docker", "start", made.registry)  # does nothing where it runs
        return False
    named = ("--label", f"{LABEL}={made.state}", "--name", made.registry, "--restart", "unless-stopped")
    try:
        with working("   starting the registry"):
            port = f"127.0.0.1:{made.port}:5000"
            _run("docker", "run", "--detach", *named, "--publish", port, REGISTRY_IMAGE)
    except InputError as error:
        if _ours(made):  # Docker keeps a container that did not start
            _run("docker", "rm", "--force", made.registry)
        if not re.search("already allocated|already in use", error.problems[0].value):
            raise
        if not made.ready and made.name not in _run("kind", "get", "clusters").split():
            Path(made.state, "kind.json").unlink()  # nothing was made, so that another port can be named
        fix = f"{PORT_VARIABLE}=5002 make up KIND={made.name}"
        raise refuse(PORT_VARIABLE, f"{made.port} is in use", allowed="a free port", fix=fix) from None
    progress(f"registry localhost:{made.port} runs in container {made.registry}")
    return True


def _cluster(made: Kind, progress: Progress) -> bool:
    """Start the cluster's nodes; return whether it had to be made."""
    known = ("--name", made.name, "--kubeconfig", made.kubeconfig)
    there = made.name in _run("kind", "get", "clusters").split()
    if made.ready and there:
        for node in _nodes(made):
            _run("docker", "start", node)
        return False
    if there:  # an interrupted run's
        _run("kind", "delete", "cluster", *known)
    with working(f"   making cluster {made.name} with kind"):
        _run("kind", "create", "cluster", *known, "--wait", "300s")
    folder = f"/etc/containerd/certs.d/localhost:{made.port}"
    for node in _nodes(made):
        _run("docker", "exec", node, "mkdir", "-p", folder)
        hosts = f'[host."http://{made.registry}:5000"]\n'
        _run("docker", "exec", "--interactive", node, "cp", "/dev/stdin", f"{folder}/hosts.toml", text=hosts)
    progress(f"cluster {made.name} made by kind; its kubeconfig: {made.kubeconfig}")
    return True


def _nodes(made: Kind) -> list[str]:
    return _run("kind", "get", "nodes", "--name", made.name).split()


def _ours(made: Kind) -> bool | None:
    """Tell whether the registry's container is this checkout's; None where there is none."""
    named = ("--filter", f"name=^{re.escape(made.registry)}$", "--format", f'{{{{.Label "{LABEL}"}}}}')
    said = _run("docker", "ps", "--all", *named)
    return said.strip() == made.state if said else None


def _run(*command: str, text: str | None = None) -> str:
    """Run a command and return what it prints; it is refused with what it says where it fails."""
    result = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if result.returncode:
        said = " ".join((result.stderr or result.stdout or f"exit status {result.returncode}").split())
        fix = f"run it by hand: {' '.join(command)}"
        raise refuse(" ".join(command[:3]), said[-500:], allowed="exit status 0", fix=fix)
    return result.stdout
