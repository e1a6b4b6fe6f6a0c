"""That a pod is on the GPU: the card as it is seen from inside, and its processes as the driver sees them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from components.model_service import CONTAINER
from local.gpu import Gpus
from operations.cluster import Cluster, ClusterError

#: Where the driver is in a pod, as on GKE's nodes.
DRIVER = "/usr/local/nvidia"
_INSIDE = (
    f'LD_LIBRARY_PATH="{DRIVER}/lib64:$LD_LIBRARY_PATH" exec {DRIVER}/bin/nvidia-smi '
    "--query-gpu=name,uuid,driver_version,memory.used,memory.total --format=csv,noheader"
)


def evidence(cluster: Cluster, pod: Mapping[str, Any], gpus: Gpus) -> dict[str, Any]:
    """Return what shows that a pod is on the GPU."""
    return {
        "inside": _execute(cluster, pod, _INSIDE).splitlines(),
        "devices": _execute(cluster, pod, "ls /dev/ | grep nvidia").split(),
        "sharedMemory": _execute(cluster, pod, "df -h /dev/shm | tail -1").split(),
        "processes": processes(str(pod["metadata"]["uid"]), gpus),
    }


def processes(uid: str, gpus: Gpus) -> list[dict[str, Any]]:
    """Return the processes of a pod that the driver has on a card; uid: the pod's."""
    found = []
    for line in _smi(gpus, "--query-compute-apps=pid,gpu_uuid,used_memory").splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) != 3 or not parts[0].isdecimal():
            continue
        with suppress(psutil.Error, OSError):
            process = psutil.Process(int(parts[0]))
            # The kubelet names a pod's cgroups by its uid; those of systemd have _ for -.
            groups = Path(f"/proc/{process.pid}/cgroup").read_text().replace("_", "-")
            if uid in groups:
                name = " ".join(process.cmdline()[:3])[-60:] or process.name()
                found.append(
                    {"user": process.uids().real, "card": parts[1], "memory": parts[2], "process": name}
                )
    return found


def _smi(gpus: Gpus, query: str) -> str:
    own = gpus.libraries / "bin/nvidia-smi" if gpus.libraries else None
    program = str(own) if own and own.exists() else shutil.which("nvidia-smi")
    if program is None:
        return ""
    env = dict(os.environ)
    if gpus.libraries:
        env["LD_LIBRARY_PATH"] = f"{gpus.libraries}/lib64:{env.get('LD_LIBRARY_PATH', '')}".rstrip(":")
    command = [program, query, "--format=csv,noheader"]
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _execute(cluster: Cluster, pod: Mapping[str, Any], script: str) -> str:
    metadata = pod["metadata"]
    try:
        return cluster.execute(metadata["namespace"], metadata["name"], CONTAINER, ["sh", "-c", script])
    except ClusterError as error:
        return str(error)
