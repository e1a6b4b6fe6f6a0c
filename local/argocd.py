"""Argo CD on the embedded platform, used as a person does: its command line, and a Git host that it reads."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from local.tool_list import ARGOCD, tools_folder

NAMESPACE = "argocd"
#: Of the Git host; on the platform's own link, which nothing else listens on.
PORT = 19418
#: Seconds until a change of a small model is served and Argo CD has seen it.
SERVED = 300


class ArgoError(Exception):
    """A command ended with another status than 0; the message is what it said."""


@dataclass(frozen=True)
class ArgoCD:
    """Argo CD's own command line, without its web server (`--core`).

    kubeconfig: of its namespace. program: name of its tool.
    """

    kubeconfig: Path
    program: str = ARGOCD

    @classmethod
    def of(cls, kubeconfig: Path, folder: Path, program: str = ARGOCD) -> ArgoCD:
        """Return it for a cluster; folder: for a kubeconfig of its own."""
        told = yaml.safe_load(kubeconfig.read_text())
        for context in told["contexts"]:
            context["context"]["namespace"] = NAMESPACE
        own = folder / "argocd.kubeconfig"
        own.touch(mode=0o600)
        own.write_text(yaml.safe_dump(told))
        made = cls(own, program)
        made("app", "list")  # the first command makes the project `default`, as the web server does elsewhere
        return made

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command.

        Raises:
            ArgoError: it failed, and `check` is set.
        """
        result = subprocess.run(
            [tools_folder() / "bin" / self.program, *arguments, "--core"],
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.kubeconfig.parent)},
            capture_output=True,
            text=True,
            check=False,
        )
        if check and result.returncode:
            raise ArgoError(f"argocd {' '.join(arguments)}: {(result.stderr or result.stdout).strip()}")
        return result

    def application(self, name: str, *, refresh: bool = False) -> dict[str, Any]:
        """Return an Application's status; nothing before its first. refresh: Argo CD looks at Git first."""
        more = ["--hard-refresh"] if refresh else []
        told = json.loads(self("app", "get", name, "-o", "json", *more).stdout)
        found: dict[str, Any] = told.get("status") or {}
        return found

    def status(self, name: str, *, refresh: bool = False) -> tuple[str, str]:
        """Return whether an Application is synchronised, and its health."""
        found = self.application(name, refresh=refresh)
        said = [str(found.get(part, {}).get("status", "Unknown")) for part in ("sync", "health")]
        return said[0], said[1]

    def sync(self, name: str, *more: str) -> tuple[str, str]:
        """Synchronise by hand, wait as a person would, and return the status."""
        self("app", "sync", name, "--timeout", str(SERVED), *more)
        self("app", "wait", name, "--sync", "--health", "--timeout", str(SERVED))
        return self.status(name)


@dataclass(frozen=True)
class Deployments:
    """A checkout of a Git repository that is served. address: that it is read from."""

    checkout: Path
    address: str

    def git(self, *arguments: str) -> None:
        """Run git in the checkout."""
        who = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
        subprocess.run(["git", "-C", str(self.checkout), *who, *arguments], check=True, capture_output=True)

    def commit(self, why: str) -> None:
        """Do what a person does with what `pulumi up` wrote."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", why)
        self.git("push", "--quiet", "origin", "main")


@contextmanager
def deployments(folder: Path, host: str) -> Iterator[Deployments]:
    """Serve a repository as a Git host does, meanwhile.

    Args:
        folder: for the repository and a checkout of it; what was there goes.
        host: address that pods reach this machine at.
    """
    shutil.rmtree(folder, ignore_errors=True)
    served, checkout = folder / "served", folder / "deploy"
    name = f"{uuid.uuid4().hex[:8]}.git"  # Argo CD remembers for minutes what an address had
    for command in (
        ["init", "--quiet", "--bare", "-b", "main", str(served / name)],
        ["clone", "--quiet", str(served / name), str(checkout)],
        ["-C", str(checkout), "checkout", "--quiet", "-B", "main"],
    ):
        subprocess.run(["git", *command], check=True, capture_output=True)
    listen = [f"--listen={host}", f"--port={PORT}"]
    daemon = subprocess.Popen(
        ["git", "daemon", "--export-all", "--reuseaddr", f"--base-path={served}", *listen],
        start_new_session=True,
    )
    try:
        yield Deployments(checkout, f"git://{host}:{PORT}/{name}")
    finally:
        os.killpg(daemon.pid, signal.SIGTERM)
        daemon.wait(10)
