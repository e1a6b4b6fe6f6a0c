"""What machine a report is of: cards, driver, system, versions."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform as system
import subprocess
from pathlib import Path
from typing import Any

import psutil

from local.gpu import Gpus
from local.instance import KSERVE_VERSION, KUBERNETES_VERSION, PROJECT
from local.servers.choice import RELEASES
from local.tool_list import PULUMI_VERSION

GIB = 2**30


def facts(gpus: Gpus | None, folder: Path) -> dict[str, Any]:
    """Return them for the report; folder: whose disk is told."""
    memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(folder))
    return {
        "cards": [
            {
                "name": card.name,
                "memoryGiB": round(card.memory / GIB, 1),
                "freeGiB": round(card.free / GIB, 1),
                "capability": ".".join(map(str, card.capability)),
            }
            for card in (gpus.cards if gpus else ())
        ],
        "driver": gpus.driver if gpus else None,
        "cuda": gpus.cuda if gpus else None,
        "system": _system(),
        "kernel": system.release(),
        "architecture": system.machine(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "memoryGiB": round(memory.total / GIB, 1),
        "diskFreeGiB": round(disk.free / GIB, 1),
        "cgroup": "v2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "v1",
        "python": system.python_version(),
        "commit": _commit(),
        "versions": {
            "Kubernetes": KUBERNETES_VERSION,
            "KServe": KSERVE_VERSION,
            "Pulumi": PULUMI_VERSION,
            **{release.title: release.version for release in RELEASES.values()},
            **{
                name: importlib.metadata.version(name)
                for name in ("pulumi-kubernetes", "pulumi-docker-build")
            },
        },
    }


def identity(gpus: Gpus | None) -> str:
    """Return what tells this machine from another: what was made on one is not on the other."""
    cards = ",".join(card.uuid for card in gpus.cards) if gpus else ""
    try:
        machine = Path("/etc/machine-id").read_text().strip()
    except OSError:
        machine = system.node()
    return hashlib.sha256(f"{machine} {cards}".encode()).hexdigest()[:12]


def _system() -> str:
    try:
        return system.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "not known"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "not known"
    )


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None
