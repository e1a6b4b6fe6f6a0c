"""Pulumi's own plugins: the official ones where they are or can be had, stand-ins where they cannot."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from local.instance import PROJECT, state_root

KUBERNETES_PLUGIN_VERSION = "4.34.2"
GCP_PLUGIN_VERSION = "10.2.0"


#: Official plugins that a stand-in can serve for: name → version.
PLUGINS = {"kubernetes": KUBERNETES_PLUGIN_VERSION, "gcp": GCP_PLUGIN_VERSION}
#: Comes with the Pulumi CLI.
LANGUAGE_HOST = "pulumi-language-python"


def missing_plugins(
    pulumi: Path, which: Callable[[str], Path | None], plugins: Iterable[str] = ("kubernetes",)
) -> tuple[str, ...]:
    """Say which official programs are missing and cannot be had, so that a stand-in has to serve.

    Args:
        pulumi: the CLI; the language host usually lies beside it.
        which: looks a program up on PATH.
        plugins: names out of PLUGINS that the stack needs.
    """
    has_host = which(LANGUAGE_HOST) or (pulumi.parent / LANGUAGE_HOST).exists()
    missing = [] if has_host else [LANGUAGE_HOST]
    for name in plugins:
        program = f"pulumi-resource-{name}"
        if not which(program) and not _plugin(name, PLUGINS[name], pulumi):
            missing.append(program)
    return tuple(missing)


def _plugin(name: str, version: str, pulumi: Path) -> bool:
    home = Path(os.environ.get("PULUMI_HOME", Path.home() / ".pulumi"))
    if (home / "plugins" / f"resource-{name}-v{version}").is_dir():
        return True
    try:
        socket.getaddrinfo("get.pulumi.com", 443)
    except OSError:
        return False  # no way to Pulumi's downloads from here
    result = subprocess.run(
        [str(pulumi), "plugin", "install", "resource", name, version],
        env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
        capture_output=True,
        check=False,
    )
    return result.returncode == 0


def standin_folder(standins: Iterable[str]) -> Path:
    """A folder of this checkout's that holds only the stand-ins that are needed."""
    folder = state_root() / "standins"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = set(standins)
    for link in folder.iterdir():
        if link.name not in wanted:
            link.unlink()
    for name in wanted:
        link = folder / name
        source = PROJECT / "standins" / "bin" / name
        if link.is_symlink() and link.readlink() == source:
            continue
        link.unlink(missing_ok=True)
        link.symlink_to(source)
    return folder
