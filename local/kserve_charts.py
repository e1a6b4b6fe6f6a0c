"""KServe's own charts, and cert-manager's, for a platform without a KServe of its own.

A user's cluster takes them from their makers' registries. Here the programs are built from source and pushed
to the local registry by the names and tags that the charts ask for, as to a copy for a cluster without a way
out (`modelcar:kserve.imageRegistry`).
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from components.kserve.kserve_platform import RBAC_PROXY
from local import addons, platform
from local.instance import KSERVE_VERSION, Instance
from local.processor import architecture
from local.program_image import push_files
from local.tool_build import download_module, kserve_folder
from local.tool_list import CERT_MANAGER, CERT_MANAGER_VERSION, NEWER_KSERVE, NEWER_KSERVE_VERSION, Progress
from local.tools import Toolbox, find_tool

#: Other than the platform's own programs.
EXTRA = (NEWER_KSERVE, CERT_MANAGER, "kube-rbac-proxy", "helm", "kube-proxy", "coredns")
#: Parts of cert-manager that are one program here, each an image of its own in its chart.
_PARTS = ("controller", "webhook", "cainjector", "startupapicheck")
#: KServe's versions that a stack may ask for here, by the program that is its controller.
VERSIONS = {KSERVE_VERSION: "kserve-manager", NEWER_KSERVE_VERSION: NEWER_KSERVE}


def up(instance: Instance, tools: Toolbox, progress: Progress) -> None:
    """Start a platform that has no KServe, and can get one: with Services, DNS and the charts' images.

    Raises:
        PlatformError: it does not become ready.
        InputError: a program cannot be built.
    """
    bare = replace(tools, runs_kserve=False)
    platform.up(instance, bare, progress)
    addons.install(instance, bare, ["dns"], progress)
    _push_images(instance, progress)


def settings(instance: Instance, tools: Toolbox, progress: Progress, version: str) -> dict[str, Any]:
    """Return `modelcar:kserve` for a stack on that platform. version: one of VERSIONS."""
    charts = kserve_folder(progress, version) / "charts"
    return {
        "install": True,
        "version": f"v{version}",
        "chartRepository": str(charts),
        "certManagerVersion": f"v{CERT_MANAGER_VERSION}",
        "certManagerRepository": str(_cert_manager_chart(instance, tools)),
        "imageRegistry": instance.registry,
    }


def _push_images(instance: Instance, progress: Progress) -> None:
    proxy, tag = RBAC_PROXY.split(":")
    wanted: list[tuple[str, str, str, dict[str, Any]]] = [
        (proxy, tag, "kube-rbac-proxy", {"Entrypoint": ["/program"]})
    ]
    for version, name in VERSIONS.items():  # the chart says how it is called
        wanted.append(("kserve/kserve-controller", f"v{version}", name, {}))
    for part in _PARTS:
        own = {"Entrypoint": ["/program", part]}
        wanted.append((f"jetstack/cert-manager-{part}", f"v{CERT_MANAGER_VERSION}", CERT_MANAGER, own))
    for repository, tag, name, config in wanted:
        program = find_tool(name, progress)
        place = "/manager" if repository.startswith("kserve/") else "/program"
        push_files(
            {place: program},
            instance.registry,
            name,
            architecture(),
            config,
            repository=repository,
            tag=tag,
        )


def _cert_manager_chart(instance: Instance, tools: Toolbox) -> Path:
    """Return a folder that holds cert-manager's chart as it is released: with its version in it."""
    target = instance.state / "charts"
    if not (target / "cert-manager").exists():
        module = download_module(CERT_MANAGER, "github.com/cert-manager/cert-manager")
        version = f"v{CERT_MANAGER_VERSION}"
        source, packed = target / "source" / "cert-manager", target / "packed"
        shutil.copytree(
            Path(module["Dir"]) / "deploy/charts/cert-manager", source, copy_function=shutil.copyfile
        )
        # Its release writes the README, which Helm wants to be there.
        packed.mkdir(exist_ok=True)
        command = [tools["helm"], "package", str(source), "--version", version, "--app-version", version]
        subprocess.run([*command, "--destination", str(packed)], check=True, capture_output=True)
        archive = str(packed / f"cert-manager-{version}.tgz")
        subprocess.run(["tar", "-xzf", archive, "-C", str(target)], check=True)
    return target
