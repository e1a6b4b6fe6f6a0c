"""Bring the embedded platform up, show it, and take it down without a trace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from local import cgroups, direct, kserve, namespaces, netfilter, state_folder
from local.alone import alone
from local.cgroups import make_room
from local.debian import find_debian
from local.gpu import Gpus
from local.instance import PROJECT, SLOTS, Instance, link_owner, slot_is_free
from local.oci_push import push_layout
from local.pki import NODE, write_pki
from local.plan import (
    COVERED,
    CRDS_READY,
    GPU_RESOURCE,
    TOOL_IMAGE,
    TOOL_IMAGE_READY,
    device_plugin_file,
    platform_network,
    versions,
    write_plan,
)
from local.routes import require_free_networks
from local.slots import release
from local.supervisor import NOTES
from local.tool_list import Progress, tools_folder
from local.tools import Toolbox
from modelcar.base import write_base_layout
from modelcar.errors import refuse
from modelcar.oci_layout import replace_file
from modelcar.progress import working

#: Patience for one process of the platform on a busy two-core machine, in seconds.
READY_SECONDS = 180.0
STOP_SECONDS = 90.0


class PlatformError(Exception):
    """A part of the platform did not come up; the message holds the end of its log."""


def up(instance: Instance, tools: Toolbox, progress: Progress, gpus: Gpus | None = None) -> None:
    """Start the platform, or what of it is not running, and wait until it can serve.

    Args:
        instance: the platform.
        tools: its programs; with `gpus`, DEVICE_PLUGIN among them.
        progress: takes a line for each part that took time.
        gpus: cards that the node advertises.

    Raises:
        PlatformError: a process does not become ready.
        InputError: the link's addresses are in use on this machine, or the driver's libraries are not found.
    """
    direct.reach(instance)
    anew = False
    with alone_with(instance, progress):
        running = supervisor(instance)
        if running is None:
            clean_leftovers(instance, tools)
            _start(instance, tools, progress, gpus)
            anew = True
        else:
            # A program that manages the network may have taken parts of it.
            _link(instance, tools, running.pid)
    phases: list[tuple[str, Callable[[], None]]] = [
        ("registry", lambda: _push_tool_image(instance)),
        ("buildkitd", lambda: _register_builder(instance, tools)),
        ("kube-apiserver", lambda: _install_definitions(instance, tools)),
        *([("kserve", lambda: _install_webhooks(instance, tools))] if tools.runs_kserve else []),
        ("kubelet", lambda: _wait_for_node(instance, tools)),
    ]
    if gpus:
        phases.append(("device-plugin", lambda: _wait_for_gpus(instance, tools, progress)))
    if tools.netfilter:
        phases.append(("kube-router", lambda: None))
    for service, then in phases:
        started = time.monotonic()
        with working(f"   waiting for {service}"):
            _wait_ready(instance, service)
            then()
        seconds = time.monotonic() - started
        if seconds >= 0.5:
            progress(f"{service} ready in {seconds:.1f} s")
    notes = instance.state / NOTES
    if anew and notes.exists():
        progress(notes.read_text().strip())


def alone_with(instance: Instance, progress: Progress) -> AbstractContextManager[int]:
    """Keep other commands from starting, stopping or removing the platform; wait for one that does.

    Two that start it at once would each see none, and one of the two would be lost sight of.
    """
    instance.state.parent.mkdir(parents=True, exist_ok=True)
    # Beside the folder, which `make clean` removes; not `run_lock`, which a command holds all the time.
    return alone(instance.state.with_name(f"{instance.name}.start.lock"), progress)


def supervisor(instance: Instance) -> psutil.Process | None:
    """Return the platform's first process, if it runs. A reused pid is told apart by its command line."""
    # The second is what it holds all its life: it is found also where its pid file was lost.
    for file in (instance.pids / "supervisor.pid", instance.state / "supervisor.lock"):
        with suppress(OSError, ValueError, psutil.Error):
            process = psutil.Process(int(file.read_text()))
            ours = str(instance.state / "plan.json") in process.cmdline()
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                return process
    return None


def status(instance: Instance) -> dict[str, dict[str, Any]]:
    """Return what the supervisor last wrote of each process, with the pid and memory that the host sees."""
    if supervisor(instance) is None or not instance.status_file.exists():
        return {}
    services: dict[str, dict[str, Any]] = json.loads(instance.status_file.read_text())
    for name, service in services.items():
        service["pid"], service["memoryMiB"] = None, None
        with suppress(OSError, ValueError, psutil.Error):
            process = psutil.Process(int((instance.pids / f"{name}.pid").read_text()))
            service["pid"] = process.pid
            service["memoryMiB"] = round(process.memory_info().rss / 2**20)
    return services


def hands_out(instance: Instance) -> set[str]:
    """Return the UUIDs of the GPUs that the running platform hands out; none where it does not run."""
    config = device_plugin_file(instance)
    if supervisor(instance) is None or not config.exists():
        return set()
    return {device["id"] for device in json.loads(config.read_text())["devices"]}


def started_with(instance: Instance) -> dict[str, str]:
    """Return the versions that the running platform was started with, as `plan.versions` has them.

    None where it does not run, or was started by a version before 0.4.0.
    """
    if supervisor(instance) is None:
        return {}
    with suppress(OSError, ValueError):
        found: dict[str, str] = json.loads((instance.state / "plan.json").read_text()).get("versions", {})
        return found
    return {}


def down(instance: Instance, progress: Progress) -> None:
    """Stop the platform. Its data stay (images, cluster state), as after a reboot of a machine."""
    with alone_with(instance, progress):
        _stop(instance, progress)


def _stop(instance: Instance, progress: Progress) -> None:
    process = supervisor(instance)
    if process is not None:
        process.send_signal(signal.SIGTERM)
        try:
            with working("   stopping the platform"):
                process.wait(STOP_SECONDS)
        except psutil.TimeoutExpired:
            progress("the supervisor did not stop in time: killing it, and with it all of its processes")
            process.kill()
            process.wait(STOP_SECONDS)
        progress("platform stopped")
    clean_leftovers(instance, None)
    release(instance.slot, instance.state)


def restart(instance: Instance, name: str) -> None:
    """End a process of the platform, which its supervisor starts again, and wait until it is ready.

    Raises:
        PlatformError: it does not become ready.
    """
    former = starts(status(instance)[name])
    with suppress(OSError, ValueError, psutil.Error):
        psutil.Process(int((instance.pids / f"{name}.pid").read_text())).terminate()
    _wait(
        lambda: starts(status(instance)[name]) > former,
        STOP_SECONDS,
        lambda: f"{name} does not end\n{_log_tail(instance, name)}",
    )
    _wait_ready(instance, name)


def starts(service: dict[str, Any]) -> int:
    """Return how often a process was started, of its status; a supervisor before 0.4.0 counts otherwise."""
    return int(service.get("starts", service["restarts"] + 1))


def clean_leftovers(instance: Instance, tools: Toolbox | None) -> None:
    """Remove what outlives the namespaces, or a crash: the link, pid files, empty cgroups, cover folders."""
    ip = tools.programs["ip"] if tools else find_debian("ip", tools_folder() / "debian")
    if ip and link_owner(instance.link) == str(instance.state):  # never another checkout's
        # The kernel removes it a moment after the last process; deleting it at once is not an error.
        subprocess.run([str(ip), "link", "delete", instance.link], capture_output=True, check=False)
    for pid_file in instance.pids.glob("*.pid"):
        pid_file.unlink()
    for file in (instance.status_file, instance.buildkit_socket):
        file.unlink(missing_ok=True)
    # With another platform beside it these may be that one's. Removing a folder would take its cover off
    # (mount_namespaces(7), since Linux 3.18), and a cgroup is empty until its container starts.
    if all(slot_is_free(slot) for slot in SLOTS if slot != instance.slot):
        for hierarchy in cgroups.ROOT.glob("**/k8s.io"):
            _remove_empty_cgroups(hierarchy)
        for hidden in COVERED:
            with suppress(OSError):
                Path(hidden).rmdir()  # only where it is empty: the platform covers it, and never writes there


def _remove_empty_cgroups(root: Path) -> None:
    """rmdir refuses a cgroup that is in use, so another runtime's containers are safe."""
    for folder, _, _ in os.walk(root, topdown=False):
        with suppress(OSError):
            Path(folder).rmdir()


# --- starting ---------------------------------------------------------------------------------------


def _start(instance: Instance, tools: Toolbox, progress: Progress, gpus: Gpus | None) -> None:
    _require_free_addresses(instance, tools, progress)
    require_hosts_file()
    state_folder.make(instance.state)
    instance.state.chmod(0o700)
    replace_file(instance.state / "slot", str(instance.slot).encode())
    write_pki(instance)
    base = write_base_layout(tools.programs["busybox"], instance.state / "base")
    plan = write_plan(instance, tools, f"{instance.registry}/{TOOL_IMAGE}@{base.image.digest}", gpus)
    make_room(progress)
    command = [tools["unshare"], *namespaces.UNSHARE]
    with (instance.logs / "supervisor.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, sys.executable, "-m", "local.supervisor", str(plan)],
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C at `make up` leaves the platform to `make down`
        )
    _wait(lambda: supervisor(instance) is not None, 30, lambda: _log_tail(instance, "supervisor"), process)
    running = supervisor(instance)
    if running is None:
        raise PlatformError(f"the supervisor ended at once:\n{_log_tail(instance, 'supervisor')}")
    try:
        _link(instance, tools, running.pid)
    except PlatformError:
        _stop(instance, lambda _: None)
        raise


def _link(instance: Instance, tools: Toolbox, pid: int) -> None:
    """Join the host and the platform's network namespace by a veth pair, or put right what of it is missing.

    No route leads further out.
    """
    ip, owner = tools["ip"], link_owner(instance.link)
    if owner not in {None, "", str(instance.state)}:
        raise PlatformError(f"{instance.link} is the platform's of {owner}: run `make down` here and there")
    pair = [ip, "link", "add", instance.link, "type", "veth", "peer", "name", "eth0", "netns", str(pid)]
    inside = [str(Path(tools["unshare"]).with_name("nsenter")), f"--net=/proc/{pid}/ns/net"]
    commands = [
        *([pair] if owner is None else []),
        [ip, "link", "set", instance.link, "alias", str(instance.state)],
        [ip, "address", "replace", f"{instance.host_address}/30", "dev", instance.link],
        [ip, "link", "set", instance.link, "up"],
        *([*inside, *command] for command in platform_network(instance, ip)),
        [ip, "route", "replace", instance.pod_cidr, "via", instance.address, "dev", instance.link],
    ]
    for command in commands:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise PlatformError(f"{' '.join(command)}: {result.stderr.strip()}")


def _require_free_addresses(instance: Instance, tools: Toolbox, progress: Progress) -> None:
    """Refuse to shadow a network that this machine already reaches some other way."""
    owner = link_owner(instance.link)
    if owner is not None:
        raise refuse(
            f"network link {instance.link}",
            f"in use by the platform of {owner or 'somebody else'}",
            allowed="a link of this platform's own: its addresses are in its certificates and image names",
            fix="run `make down` in that checkout; or `make clean` here, which takes another link next time",
        )
    require_free_networks(instance, tools["ip"], progress)


def require_hosts_file(hosts: Path = Path("/etc/hosts")) -> None:
    """Refuse a machine without /etc/hosts, as a minimal root file system: containerd copies it for each pod.

    Raises:
        InputError: it is not there; no pod would ever be made, and nothing would say why.
    """
    if not hosts.is_file():
        raise refuse(
            str(hosts),
            "not there",
            allowed="a file, which containerd copies for each pod",
            fix=f"echo '127.0.0.1 localhost' > {hosts}",
        )


def _wait(
    done: Callable[[], bool],
    seconds: float,
    explain: Callable[[], str],
    process: subprocess.Popen[bytes] | None = None,
) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if process is not None and process.poll() is not None:
            raise PlatformError(f"ended with exit status {process.returncode}:\n{explain()}")
        if time.monotonic() > deadline:
            raise PlatformError(f"not ready after {seconds:.0f} s:\n{explain()}")
        time.sleep(0.05)


def _wait_ready(instance: Instance, service: str) -> None:
    def ready() -> bool:
        if supervisor(instance) is None:
            raise PlatformError(f"the supervisor is gone:\n{_log_tail(instance, 'supervisor')}")
        with suppress(OSError, ValueError, KeyError):
            found = json.loads(instance.status_file.read_text())[service]
            if found["state"] == "ready":  # however often it crashed before
                return True
            if found["restarts"] >= 4:
                ended = f"{service} ended {found['restarts']} times ({found['lastExit']})"
                raise PlatformError(f"{ended}:\n{_log_tail(instance, service)}")
        return False

    _wait(ready, READY_SECONDS, lambda: f"{service}\n{_log_tail(instance, service)}")


def _log_tail(instance: Instance, service: str, lines: int = 15) -> str:
    path = instance.logs / f"{service}.log"
    if not path.exists():
        return f"(no log at {path})"
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) + f"\n(whole log: {path})"


# --- what is done from the host ---------------------------------------------------------------------


def _push_tool_image(instance: Instance) -> None:
    """Push it, and wait for a registry that crashed a moment ago, as kubectl does for an API server."""
    failed = ""

    def pushed() -> bool:
        nonlocal failed
        try:
            push_layout(instance.state / "base", instance.registry, TOOL_IMAGE)
        except httpx.HTTPError as error:
            failed = f"pushing {TOOL_IMAGE} to {instance.registry}: {error}"
            if not isinstance(error, httpx.TransportError):
                raise PlatformError(failed) from error
            return False
        return True

    _wait(pushed, CRASH_SECONDS, lambda: failed)
    (instance.state / TOOL_IMAGE_READY).touch()


def _register_builder(instance: Instance, tools: Toolbox) -> None:
    """Make BuildKit known to buildx by name, in a buildx configuration of the platform's own."""
    environment = {**os.environ, "BUILDX_CONFIG": str(instance.buildx_config)}
    endpoint = f"unix://{instance.buildkit_socket}"
    builder = instance.buildx_config / "instances" / instance.builder
    if builder.exists():
        if f'"{endpoint}"' in builder.read_text():
            return
        builder.unlink()  # of a checkout that was moved: buildx changes no builder's address
    command = [tools["buildx"], "create", "--name", instance.builder, "--driver", "remote", endpoint]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    # Another `make up`, which waits for the platform too, may have been faster.
    if result.returncode and not (builder.exists() and endpoint in builder.read_text()):
        raise PlatformError(f"buildx create: {result.stderr.strip()}")


def kubectl(
    instance: Instance,
    tools: Toolbox,
    *arguments: str,
    documents: list[dict[str, Any]] | None = None,
    patience: float = 0.0,
) -> str:
    """Run kubectl as the platform's administrator and return what it printed.

    Args:
        documents: for its standard input.
        patience: seconds to try again in, where the API server does not listen: it may have crashed a moment
            ago, and the supervisor starts it again.

    Raises:
        PlatformError: kubectl failed; the message is its own.
    """
    text = yaml.safe_dump_all(documents) if documents is not None else None
    command = [tools["kubectl"], "--kubeconfig", str(instance.kubeconfig), *arguments]
    environment = {**os.environ, **direct.variables(instance), "KUBECACHEDIR": str(instance.kubectl_cache)}
    deadline = time.monotonic() + patience
    while True:
        result = subprocess.run(
            command, input=text, capture_output=True, text=True, check=False, env=environment
        )
        if "connection refused" not in result.stderr or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    if result.returncode:
        raise PlatformError(f"kubectl {' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout


#: An API server that has crashed listens again after so many seconds at most (13 were measured).
CRASH_SECONDS = 40.0
APPLY = ("apply", "--server-side", "--force-conflicts", "--field-manager=modelcar-platform")


def _apply(instance: Instance, tools: Toolbox, documents: list[dict[str, Any]]) -> None:
    kubectl(instance, tools, *APPLY, "-f", "-", documents=documents, patience=CRASH_SECONDS)


def _install_definitions(instance: Instance, tools: Toolbox) -> None:
    if (instance.state / CRDS_READY).exists():
        return
    documents = list(netfilter.definitions())
    if tools.runs_kserve:
        files = [argument for path in kserve.crd_files(tools.kserve) for argument in ("-f", str(path))]
        kubectl(instance, tools, *APPLY, *files, patience=CRASH_SECONDS)
        documents += kserve.definitions(tools.kserve)
    _apply(instance, tools, documents)
    await_definitions(instance, tools)
    (instance.state / CRDS_READY).touch()


def await_definitions(instance: Instance, tools: Toolbox) -> None:
    """Wait until the API server takes objects of all kinds that are defined.

    Raises:
        PlatformError: it does not; with their names.
    """
    _wait(lambda: not _unserved(instance, tools), 60, lambda: f"CRDs: {_unserved(instance, tools)}")


def _unserved(instance: Instance, tools: Toolbox) -> list[str]:
    """Return the CRDs whose objects the API server does not take yet.

    `kubectl wait` fails where a CRD is so new that it has no conditions at all.
    """
    found = json.loads(kubectl(instance, tools, "get", "crd", "-o", "json"))["items"]
    return [crd["metadata"]["name"] for crd in found if not _is(crd, "Established")]


def _is(document: dict[str, Any], condition: str) -> bool:
    conditions = document.get("status", {}).get("conditions") or []
    return any(entry["type"] == condition and entry["status"] == "True" for entry in conditions)


def _install_webhooks(instance: Instance, tools: Toolbox) -> None:
    own = versions(tools)["KServe"]
    if started_with(instance).get("KServe", own) != own:
        return  # another one runs, whose webhooks they would become
    _apply(instance, tools, kserve.webhooks(tools.kserve, instance))


def _wait_for_node(instance: Instance, tools: Toolbox) -> None:
    _wait_for_object(instance, tools, f"node/{NODE}")
    kubectl(instance, tools, "wait", "--for=condition=Ready", "--timeout=60s", f"node/{NODE}")
    _wait_for_object(instance, tools, "serviceaccount/default", "--namespace=default")


def _wait_for_object(instance: Instance, tools: Toolbox, *what: str) -> None:
    """Wait until an object is there. `kubectl wait --for=create` is of 1.31, and one on PATH may be older."""

    def there() -> bool:
        return bool(kubectl(instance, tools, "get", *what, "--ignore-not-found", "-o", "name").strip())

    _wait(there, 60, lambda: f"{what[0]} is not there")


def _wait_for_gpus(instance: Instance, tools: Toolbox, progress: Progress) -> None:
    """Wait until the node advertises cards, by whichever plugin."""
    found = 0

    def advertised() -> bool:
        nonlocal found
        node = json.loads(kubectl(instance, tools, "get", "node", NODE, "-o", "json", patience=CRASH_SECONDS))
        found = int(node["status"]["allocatable"].get(GPU_RESOURCE, 0))
        return found > 0

    _wait(advertised, 60, lambda: f"{GPU_RESOURCE}\n{_log_tail(instance, 'device-plugin')}")
    # As NVIDIA's GPU operator labels nodes; modelcar:prePull finds them by it.
    kubectl(instance, tools, "label", "node", NODE, "--overwrite", f"{GPU_RESOURCE}.present=true")
    progress(f"the node advertises {GPU_RESOURCE}: {found}")
