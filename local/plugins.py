"""Pulumi's own plugins: the official ones where they are or can be had, else ours.

Ours is the real kubernetes provider, built from its Go module, and stand-ins for what has none.
"""

from __future__ import annotations

import base64
import http.client
import os
import socket
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from local.downloads.web import PROBE_SECONDS, answer_within
from local.instance import PROJECT, state_root
from modelcar.home import in_home
from modelcar.proxies import proxy_for

KUBERNETES_PLUGIN_VERSION = "4.34.2"
GCP_PLUGIN_VERSION = "10.2.0"


#: Official plugins that a program of ours can serve for: name → version that its SDK asks for.
PLUGINS = {"kubernetes": KUBERNETES_PLUGIN_VERSION, "gcp": GCP_PLUGIN_VERSION}
KUBERNETES_PLUGIN = "pulumi-resource-kubernetes"
#: Where Pulumi downloads them from.
DOWNLOADS = "get.pulumi.com"
#: Comes with the Pulumi CLI.
LANGUAGE_HOST = "pulumi-language-python"


@dataclass(frozen=True)
class Found:
    """What there is of Pulumi's own programs.

    missing: programs that are not here and cannot be had, so that ours have to serve.
    downloads: False where a plugin of an installed SDK is not here and cannot be downloaded. Pulumi must not
        try then: it does so five times for each such plugin before each command, which takes three seconds.
    """

    missing: tuple[str, ...]
    downloads: bool


def find_plugins(
    pulumi: Path, which: Callable[[str], Path | None], plugins: Iterable[str] = ("kubernetes",)
) -> Found:
    """Say which official programs are missing and cannot be had; install the plugins that can.

    Args:
        pulumi: the CLI; the language host usually lies beside it.
        which: looks a program up on PATH.
        plugins: names out of PLUGINS that the stack needs.
    """
    has_host = which(LANGUAGE_HOST) or (pulumi.parent / LANGUAGE_HOST).exists()
    missing = [] if has_host else [LANGUAGE_HOST]
    absent = [name for name in PLUGINS if not which(f"pulumi-resource-{name}") and not _is_installed(name)]
    downloads = not absent or _is_reachable()
    for name in plugins:
        if name in absent and not (downloads and _install(name, pulumi)):
            missing.append(f"pulumi-resource-{name}")
            downloads = False
    return Found(tuple(missing), downloads)


def _is_installed(name: str) -> bool:
    home = Path(os.environ.get("PULUMI_HOME", in_home("~/.pulumi")))
    return (home / "plugins" / f"resource-{name}-v{PLUGINS[name]}").is_dir()


def _is_reachable() -> bool:
    """Whether there is a way to Pulumi's downloads from here; a name server that is silent is none."""
    return answer_within(PROBE_SECONDS, _is_known) or False


def _is_known() -> bool:
    """Whether somebody leads there: the proxy that stands between, whose names these are then, or DNS."""
    proxy = proxy_for(f"https://{DOWNLOADS}")
    try:
        if proxy is None:
            socket.getaddrinfo(DOWNLOADS, 443)
        elif (parts := urlsplit(proxy)).scheme == "http":
            _connect(parts)
        else:  # https or socks: it is Pulumi that can speak to it
            socket.getaddrinfo(parts.hostname, parts.port)
    except (OSError, ValueError, http.client.HTTPException):
        return False
    return True


def _connect(proxy: SplitResult) -> None:
    """Ask a proxy for a way to Pulumi's downloads.

    Raises:
        OSError, HTTPException: it does not answer, or refuses.
    """
    who = f"{unquote(proxy.username or '')}:{unquote(proxy.password or '')}"
    basic = {"Proxy-Authorization": f"Basic {base64.b64encode(who.encode()).decode()}"}
    connection = http.client.HTTPConnection(proxy.hostname or "", proxy.port or 80, timeout=PROBE_SECONDS)
    connection.set_tunnel(DOWNLOADS, 443, basic if proxy.username else None)
    try:
        connection.connect()
    finally:
        connection.close()


def _install(name: str, pulumi: Path) -> bool:
    result = subprocess.run(
        [str(pulumi), "plugin", "install", "resource", name, PLUGINS[name]],
        env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
        capture_output=True,
        check=False,
    )
    return result.returncode == 0


def plugin_folder(standins: Iterable[str], built: Mapping[str, Path] | None = None) -> Path:
    """Return a folder of this checkout's that holds only those programs of ours that are needed.

    Each choice of them has its own: a command that runs goes on finding what it was given.

    Args:
        standins: names of stand-ins.
        built: programs that are no stand-ins, by name: plugins that were built here, uv.
    """
    wanted = {name: PROJECT / "local" / "standins" / "bin" / name for name in standins} | dict(built or {})
    folder = state_root() / "standins" / ("+".join(sorted(wanted)) or "none")
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in wanted.items():
        link = folder / name
        if link.is_symlink() and link.readlink() == source:
            continue
        part = folder.with_name(f".{name}.{os.getpid()}.part")  # a command may be about to run it
        part.unlink(missing_ok=True)
        part.symlink_to(source)
        part.replace(link)
    return folder
