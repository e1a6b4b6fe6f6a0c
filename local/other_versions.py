"""The platform with programs of other versions than its own, for tests of what they do."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from local.debian import is_whole, unpack_debian
from local.instance import KSERVE_VERSION
from local.tool_build import kserve_folder
from local.tool_list import (
    CONTAINERD_PROGRAMS,
    KUBERNETES_PROGRAMS,
    NEWER_KSERVE,
    NEWER_KSERVE_VERSION,
    OLDER_KSERVE,
    OLDER_KSERVE_VERSION,
    OLDER_KUBERNETES,
    Progress,
    tools_folder,
)
from local.tools import Toolbox, find_tool
from modelcar.errors import refuse

#: KServe's controllers, by the name of the program.
KSERVES = {OLDER_KSERVE: OLDER_KSERVE_VERSION, NEWER_KSERVE: NEWER_KSERVE_VERSION}
#: Debian 12's containerd.
DEBIAN = "1.6"


def with_kserve(tools: Toolbox, name: str, progress: Progress) -> Toolbox:
    """Return the same tools with another KServe. name: one of KSERVES."""
    programs = {**tools.programs, "kserve-manager": find_tool(name, progress)}
    return replace(tools, programs=programs, kserve=kserve_folder(progress, KSERVES[name]))


def chosen_kserve(tools: Toolbox, progress: Progress) -> Toolbox:
    """Return the same tools with the KServe that MODELCAR_KSERVE names; its own where that says nothing.

    Raises:
        InputError: it names none that can be had.
    """
    wanted = os.environ.get("MODELCAR_KSERVE") or KSERVE_VERSION
    own = {_short(KSERVE_VERSION), KSERVE_VERSION}
    if wanted in own:
        return tools
    for name, version in KSERVES.items():
        if wanted in {version, _short(version)}:
            progress(f"KServe {version}, as MODELCAR_KSERVE says")
            return with_kserve(tools, name, progress)
    allowed = ", ".join(sorted({_short(version) for version in (KSERVE_VERSION, *KSERVES.values())}))
    raise refuse("MODELCAR_KSERVE", wanted, allowed=allowed, fix="unset it, or set one of these")


def _short(version: str) -> str:
    return version.rpartition(".")[0]


def with_containerd(tools: Toolbox, short: str, progress: Progress) -> Toolbox:
    """Return the same tools with another containerd. short: 1.6, Debian 12's, or of OTHER_CONTAINERDS."""
    folder = tools_folder() / f"containerd-{short}"
    names = CONTAINERD_PROGRAMS
    if short == DEBIAN:
        if not (is_whole(folder) and (folder / "usr/bin/containerd").exists()):
            unpack_debian(["containerd"], folder, progress)
        found = {name: folder / "usr/bin" / name for name in names}
    else:
        # containerd looks for its shim by its name.
        folder.mkdir(parents=True, exist_ok=True)
        found = {name: _link(folder / name, find_tool(f"{name}-{short}", progress)) for name in names}
    version = 3 if short not in {DEBIAN, "1.7"} else 2
    return replace(tools, programs={**tools.programs, **found}, containerd_config=version)


def with_older_kubernetes(tools: Toolbox, progress: Progress, feature_gates: str = "") -> Toolbox:
    """Return the same tools with the older Kubernetes."""
    names = KUBERNETES_PROGRAMS
    found = {name: find_tool(f"{name}-{OLDER_KUBERNETES[0]}", progress) for name in names}
    return replace(tools, programs={**tools.programs, **found}, feature_gates=feature_gates)


def _link(place: Path, target: Path) -> Path:
    place.unlink(missing_ok=True)
    place.symlink_to(target)
    return place
