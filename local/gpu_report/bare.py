"""The model server without Kubernetes: what a pod runs, on the host, with nothing around it.

The program, its arguments and its variables are the pod's own, by its spec; so are the user (uid 1010) and
the limits of processors and memory, by a cgroup. What differs: /tmp and /mnt/models are folders of the
report, the port is a free one of 127.0.0.1, and there is no container (no root file system, namespaces,
seccomp or network bridge). Each start has empty caches, as a new pod has.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.config.kserve import MODELCAR_UID
from components.config.model_path import MODEL_PATH
from components.config.quantities import quantity
from components.manifests.service import CONTAINER, MODEL_IS_THERE, SCRATCH
from local.ask import is_healthy
from local.gpu_report.children import Children, Failed, last_words

#: Seconds between two looks at what is timed.
TICK = 0.02
#: Where pods have the driver.
DRIVER = "/usr/local/nvidia/"
CGROUPS = Path("/sys/fs/cgroup")
PERIOD = 100_000
#: uid 1010 has to see files below folders of the user who runs this; the kubelet mounts them for the pod.
_READS = ("dac_read_search",)


@dataclass(frozen=True)
class Start:
    """A server that answers.

    url: where. began: when it was started. health: seconds from then until /health answered.
    limited: whether it has the pod's limits.
    """

    url: str
    began: datetime
    health: float
    limited: bool


def command_of(pod: Mapping[str, Any]) -> tuple[list[str], dict[str, str], Mapping[str, str]]:
    """Return the server's command line, its variables and its limits out of a pod.

    Raises:
        Failed: it does not start the server as this program's pods do.
    """
    box = next(one for one in pod["spec"]["containers"] if one["name"] == CONTAINER)
    command = list(box["command"])
    if command[:2] != ["sh", "-c"] or MODEL_IS_THERE not in command[2]:
        raise Failed(f"the pod's command is another one than expected: {command[:2]}")
    env = {entry["name"]: str(entry.get("value", "")) for entry in box.get("env") or []}
    return command[4:] + list(box.get("args") or []), env, box["resources"]["limits"]


def moved(text: str, places: Mapping[str, str]) -> str:
    """Return a path, or an argument with one, with folders of the pod replaced by the host's."""
    name, separator, value = text.rpartition("=") if text.startswith("--") else ("", "", text)
    for inside, outside in places.items():
        if value == inside or value.startswith(f"{inside}/"):
            return f"{name}{separator}{outside}{value.removeprefix(inside)}"
    return text


@contextmanager
def bare(
    children: Children,
    name: str,
    pod: Mapping[str, Any],
    model: Path,
    scratch: Path,
    cards: Sequence[int] | None = None,
) -> Iterator[Start]:
    """Run the server of a pod on the host, and yield it once it answers.

    Args:
        children: that it is one of.
        name: of its log.
        pod: whose server it is.
        model: folder of the model's files.
        scratch: folder for /tmp, made anew.
        cards: indexes of the GPUs that it sees; all of them where None.

    Raises:
        Failed: it ends before it answers; its last words are told.
    """
    command, variables, limits = command_of(pod)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    os.chown(scratch, MODELCAR_UID, MODELCAR_UID)
    places = {SCRATCH: str(scratch), MODEL_PATH: str(model)}
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [moved(part, places) for part in command]
    command[command.index("--port") + 1] = str(port)
    command += ["--host", "127.0.0.1"]
    env = {key: moved(value, places) for key, value in variables.items()} | {"TMPDIR": str(scratch)}
    if cards is not None:
        # By the driver's own order, which indexes are of.
        env |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, cards))}
    env = {key: _here(value) for key, value in env.items() if _here(value) or not value}
    try:
        with limit(limits) as groups:
            began, moment = time.monotonic(), datetime.now(UTC)
            with children.service(name, [*as_user(groups), *command], folder=scratch, env=env) as process:
                while not _answers(port):
                    if process.poll() is not None:
                        raise Failed(
                            f"bare server ended with status {process.returncode}\n{_end(children, name)}"
                        )
                    time.sleep(TICK)
                health = time.monotonic() - began
                yield Start(f"http://127.0.0.1:{port}", moment, health, bool(groups))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def as_user(groups: Sequence[Path] = ()) -> list[str]:
    """Return what comes before a command that runs as the pod's user; it ends with this process.

    groups: cgroups that it enters before it becomes that user.
    """
    capabilities = ",".join(f"+{name}" for name in _READS)
    become = [
        "setpriv",
        f"--reuid={MODELCAR_UID}",
        f"--regid={MODELCAR_UID}",
        "--clear-groups",
        "--pdeathsig=KILL",
    ]
    become += [f"--inh-caps=-all,{capabilities}", f"--ambient-caps=-all,{capabilities}"]
    enter = "".join(f'echo $$ > "{group}/cgroup.procs" && ' for group in groups)
    return ["sh", "-c", f'{enter}exec "$@"', "bare", *become]


@contextmanager
def limit(limits: Mapping[str, str]) -> Iterator[list[Path]]:
    """Make cgroups with a pod's limits of processors and memory; yield none where that cannot be."""
    quota, memory = round(float(quantity(limits["cpu"])) * PERIOD), int(quantity(limits["memory"]))
    name = f"modelcar-gpu-report-{os.getpid()}"
    values: dict[Path, dict[str, str]]
    if (CGROUPS / "cgroup.controllers").exists():
        values = {CGROUPS / name: {"cpu.max": f"{quota} {PERIOD}", "memory.max": str(memory)}}
    else:
        values = {
            CGROUPS / "memory" / name: {"memory.limit_in_bytes": str(memory)},
            CGROUPS / "cpu" / name: {"cpu.cfs_period_us": str(PERIOD), "cpu.cfs_quota_us": str(quota)},
        }
    made: list[Path] = []
    try:
        try:
            for group, files in values.items():
                group.mkdir(exist_ok=True)
                made.append(group)
                for file, value in files.items():
                    (group / file).write_text(value)
        except OSError:
            _remove(made)
            made = []
        yield made
    finally:
        _remove(made)


def _here(value: str) -> str:
    """Return a variable without folders of the driver that the pod has, and a host may have elsewhere."""
    return ":".join(part for part in value.split(":") if not part.startswith(DRIVER) or Path(part).exists())


def _remove(groups: Sequence[Path]) -> None:
    for group in groups:
        for _ in range(100):  # the kernel takes a moment after the last process
            with suppress(OSError):
                group.rmdir()
            if not group.exists():
                break
            time.sleep(0.05)


def _answers(port: int) -> bool:
    return is_healthy(f"http://127.0.0.1:{port}")


def _end(children: Children, name: str) -> str:
    time.sleep(0.2)  # what reads its output is a thread
    return last_words(children.said(name))
