"""The programs that the local stack runs: found on PATH, downloaded from their makers, or built from source.

A program of the user's own is preferred where its version does not matter to what is tested (the
Pulumi CLI, its plugins, buildx, Debian's parts). Kubernetes and KServe are always the pinned ones.

Downloads and builds are kept. `python -m local.tools NAME` finds one program, or downloads or builds it, and
prints its path.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local import namespaces, uv
from local.debian import debian_parts
from local.downloads import obtain
from local.instance import KSERVE_VERSION
from local.netfilter import netfilter
from local.plugins import LANGUAGE_HOST, find_plugins, plugin_folder
from local.tool_build import (
    find_or_build,
    fingerprint,
    is_ready,
    kserve_folder,
    provide,
    read_stamp,
    stamp_of,
    which,
)
from local.tool_list import (
    CLIENT_TOOLS,
    ON_REQUEST,
    TOOLS,
    Plugin,
    Progress,
    tools_folder,
)
from modelcar.errors import InputError, refuse


@dataclass(frozen=True)
class Toolbox:
    """Where each program is, and the PATH under which Pulumi finds its plugins.

    netfilter: folder of iptables and ipset; None where they do not work, or are not needed.
    embedded: for the embedded platform; False where cluster, registry and builder are the user's own.
    registry_front: a program that stands before the registry, without its last two arguments, which are the
        addresses that it listens on and passes on to; empty: clients reach the registry itself.
    built_plugins: Pulumi's own plugins that were built here, because the official ones cannot be had.
    downloads_plugins: whether Pulumi could download a plugin that a stack needs and that is not here.
    runs_kserve: whether the platform has a KServe of its own; False where a stack installs one by its charts.
    containerd_config: version of containerd's configuration file; 2 where it is older than 2.0.
    feature_gates: of Kubernetes' API server and kubelet, as `--feature-gates` takes them.
    """

    programs: dict[str, Path]
    path: str
    kserve: Path
    netfilter: Path | None = None
    standins: tuple[str, ...] = field(default=())
    embedded: bool = True
    registry_front: tuple[str, ...] = ()
    built_plugins: tuple[str, ...] = ()
    downloads_plugins: bool = True
    runs_kserve: bool = True
    containerd_config: int = 3
    feature_gates: str = ""

    def __getitem__(self, name: str) -> str:
        """Return the path of a program."""
        return str(self.programs[name])


def collect(
    progress: Progress,
    *,
    embedded: bool = True,
    extra: tuple[str, ...] = (),
    plugins: tuple[str, ...] = ("kubernetes",),
) -> Toolbox:
    """Find, download or build every program, with a line of progress for each that took time.

    Args:
        progress: takes the lines.
        embedded: also what the embedded platform runs; False where the user has a cluster and a registry.
        extra: names out of ON_REQUEST, to be collected too.
        plugins: names out of PLUGINS, which the stack needs; docker-build always is there.

    Raises:
        InputError: this machine cannot run the embedded platform; parts are missing and cannot be installed,
            a download is not what its maker published, Go is missing, or the disk is too full; or Pulumi's
            own Python language host is here without uv.
    """
    if embedded:
        namespaces.require()
    debian = debian_parts(tools_folder() / "debian", progress) if embedded else {}
    wanted = [tool for tool in TOOLS if _is_wanted(tool.name, embedded=embedded, extra=extra)]
    built = {tool.name: find_or_build(tool, progress) for tool in wanted if not isinstance(tool, Plugin)}
    kserve = kserve_folder(progress, KSERVE_VERSION) if embedded else tools_folder()
    found = find_plugins(built["pulumi"], which, plugins)
    missing = set(found.missing)
    own = {
        tool.name: provide(tool, progress)
        for tool in TOOLS
        if isinstance(tool, Plugin) and tool.name in missing
    }
    standins = tuple(name for name in found.missing if name not in own)
    beside = {} if LANGUAGE_HOST in standins else uv.beside_language_host()
    folders = [built["pulumi"].parent, tools_folder() / "bin"]
    # Last on PATH: an official program always wins over ours, and a uv of the user's over the one of `make`.
    own_path = os.environ.get("PATH", "")
    path = os.pathsep.join([*map(str, folders), own_path, str(plugin_folder(standins, own | beside))])
    filters = netfilter(tools_folder() / "netfilter", progress) if embedded else None
    return Toolbox(
        {**debian, **built, **own},
        path,
        kserve,
        filters,
        standins,
        embedded,
        built_plugins=tuple(own),
        downloads_plugins=found.downloads,
    )


def _is_wanted(name: str, *, embedded: bool, extra: tuple[str, ...]) -> bool:
    if name in ON_REQUEST:
        return name in extra
    return embedded or name in CLIENT_TOOLS


def signing_tools(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names out of ON_REQUEST that a stack with these settings needs to sign images."""
    return ("cosign",) if settings.get("signature") else ()


def find_tool(name: str, progress: Progress) -> Path:
    """Find, download or build one program of TOOLS.

    Raises:
        InputError: there is none of this name; or as `tool_build.provide`.
    """
    for tool in TOOLS:
        if tool.name == name:
            return find_or_build(tool, progress)
    raise refuse(
        "tool",
        name,
        allowed=", ".join(sorted(tool.name for tool in TOOLS)),
        fix="name one of these",
    )


def build_all(progress: Progress, extra: tuple[str, ...] = ()) -> dict[str, Path]:
    """Download or build what the embedded platform runs, whatever is on PATH, for a machine that has none.

    Args:
        progress: takes a line for each that took time.
        extra: names out of ON_REQUEST, to be built too.

    Raises:
        InputError: as `tool_build.provide`.
    """
    wanted = [tool for tool in TOOLS if _is_wanted(tool.name, embedded=True, extra=extra)]
    return {tool.name: provide(tool, progress) for tool in wanted}


def unbuilt(*, embedded: bool = True, extra: tuple[str, ...] = ()) -> list[str]:
    """Return the names of programs that `collect` would download or build, but for Pulumi's own plugins."""
    return [
        tool.name
        for tool in TOOLS
        if _is_wanted(tool.name, embedded=embedded, extra=extra)
        and not isinstance(tool, Plugin)
        and not any(which(name) for name in tool.on_path)
        and not is_ready(tool)
    ]


def fingerprints(extra: tuple[str, ...] = ()) -> dict[str, str]:
    """Return, for each program that the embedded platform builds, all that its build depends on."""
    wanted = [tool for tool in TOOLS if _is_wanted(tool.name, embedded=True, extra=extra)]
    return {tool.name: fingerprint(tool) for tool in wanted}


def mark_as_built(built: Mapping[str, str]) -> None:
    """Let programs that came from elsewhere count as built: they are of these fingerprints.

    One that came with the stamp of its download keeps it.
    """
    for tool in TOOLS:
        if tool.name in built and not obtain.belongs(read_stamp(tool), tool.target):
            stamp_of(tool).parent.mkdir(parents=True, exist_ok=True)
            stamp_of(tool).write_text(built[tool.name])


def downloads(programs: Mapping[str, Path]) -> dict[str, Path]:
    """Return the stamps of those programs that were downloaded, by name."""
    ours = [tool for tool in TOOLS if programs.get(tool.name) == tool.target]
    return {tool.name: stamp_of(tool) for tool in ours if obtain.read_stamp(read_stamp(tool))}


def sources(programs: Mapping[str, Path]) -> list[str]:
    """Return a line for each tool among these programs: its name, its version and where it came from."""
    lines = []
    for tool in TOOLS:
        path = programs.get(tool.name)
        if path is None:
            continue
        origin = obtain.read_stamp(read_stamp(tool))
        if path != tool.target:
            version, source = "-", f"PATH: {path}"
        elif origin:
            version, source = tool.version, f"{origin.host}, sha256:{origin.sha256[:12]}… ({origin.known})"
        else:
            version, source = tool.version, "its source (Go)"
        lines.append(f"{tool.name:<30}{version:<10}{source}")
    return lines


def kserve_manifests(progress: Progress) -> Path:
    """Return the folder of KServe's own CRDs, webhooks, configuration and charts.

    Raises:
        InputError: they are not in the cache, and KServe's Go module cannot be downloaded.
    """
    return kserve_folder(progress, KSERVE_VERSION)


def kserve_charts(progress: Progress) -> Path:
    """Return the folder of KServe's own Helm charts, one folder each (`kserve-crd`, `kserve-resources`, …).

    Raises:
        InputError: they are not in the cache, and KServe's Go module cannot be downloaded.
    """
    return kserve_folder(progress, KSERVE_VERSION) / "charts"


def main(arguments: list[str] | None = None) -> int:
    """Find one program, or download or build it; print its path, and what it took on standard error."""
    parser = argparse.ArgumentParser(prog="python -m local.tools", description=main.__doc__)
    parser.add_argument("name", help=", ".join(sorted(tool.name for tool in TOOLS)))
    try:
        found = find_tool(parser.parse_args(arguments).name, lambda line: print(line, file=sys.stderr))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
