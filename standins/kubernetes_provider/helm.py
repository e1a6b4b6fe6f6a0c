"""Running the real Helm: which binary, on which cluster, with which values, and what it answered.

Nothing confidential is on the command line, where every user of the machine could read it: values go in
by standard input; a kubeconfig that was given as text and the credentials of a chart's home are written
into a folder that only this user can read, for as long as one command runs.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from standins.kubernetes_provider.connection import Settings, find_kubeconfig
from standins.kubernetes_provider.properties import Secret
from standins.kubernetes_provider.refusals import RefusedError
from standins.kubernetes_provider.stopping import Stop

# The oldest Helm with everything that is used here: labels and `get metadata`.
MINIMUM = (3, 14)
ALLOWED = f"Helm {MINIMUM[0]}.{MINIMUM[1]} or a newer {MINIMUM[0]}.x"
FIX = (
    "run `python -m local.tools helm`, which builds the pinned one; or install Helm 3 "
    "(https://helm.sh/docs/intro/install/); or set MODELCAR_HELM to its path"
)
# They would lead Helm to another cluster or namespace than the provider's.
_DIVERTING = ("HELM_KUBE", "HELM_NAMESPACE", "HELM_DEBUG")
# The name of a repository with credentials, in a repository list of the one command's own.
_REPOSITORY = "release"
_MASK = "[secret]"


class HelmError(Exception):
    """Helm failed; str() is what it said, without secrets."""

    @property
    def not_found(self) -> bool:
        """There is no such release."""
        return "release: not found" in str(self)


@dataclass(frozen=True)
class Home:
    """Where a chart comes from, as far as it takes credentials: an address, and a user of it."""

    address: str = ""
    username: str = ""
    password: str = field(default="", repr=False)

    @property
    def is_oci(self) -> bool:
        """Say whether it is an OCI registry and no chart repository."""
        return self.address.startswith("oci://")


@dataclass(frozen=True)
class Answer:
    """What a command printed: its output, and its remarks (warnings, where a chart was pulled from)."""

    output: str
    remarks: tuple[str, ...]


class Helm:
    """The Helm binary, pointed at the provider's cluster."""

    def __init__(self, settings: Settings, stop: Stop) -> None:
        """Stop: ends a running command, which then marks its release as failed."""
        self._settings = settings
        self._stop = stop

    def run(
        self,
        *arguments: str,
        names: Sequence[str] = (),
        values: Mapping[str, Any] | None = None,
        home: Home | None = None,
        secrets: Iterable[str] = (),
        interruptible: bool = True,
    ) -> Answer:
        """Run one command.

        names: of a release or a chart, never taken for flags. values: go in as `--values -`. home: of a
        chart that needs credentials; its chart is then called by `chart_name`. secrets: texts that are
        masked wherever Helm repeats them. interruptible: False for a short look at how things stand after
        everything was told to end.

        Raises:
            HelmError: Helm failed.
            RefusedError: there is no Helm, or not one that can be used.
            KubeconfigError: the provider's kubeconfig cannot be used.
        """
        command = [binary(), *arguments]
        if values is not None:
            command += ["--values", "-"]
        command += ["--", *names]
        with tempfile.TemporaryDirectory(prefix="modelcar-helm-") as folder:
            environment = self._environment(Path(folder))
            if home is not None and home.username:
                self._log_in(home, Path(folder), environment)
            text = json.dumps(values, ensure_ascii=False)
            stop = self._stop if interruptible else Stop()
            return self._finish(command, environment, text, tuple(secrets), stop)

    def _environment(self, folder: Path) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_DIVERTING)}
        found = find_kubeconfig(self._settings.kubeconfig)
        if found is not None:
            environment["KUBECONFIG"] = found.file or _private(
                folder / "kubeconfig", self._settings.kubeconfig
            )
        if self._settings.context:
            environment["HELM_KUBECONTEXT"] = self._settings.context
        return environment

    def _log_in(self, home: Home, folder: Path, environment: dict[str, str]) -> None:
        """Make the credentials known to the one command."""
        if home.is_oci:
            user = base64.b64encode(f"{home.username}:{home.password}".encode()).decode()
            content = json.dumps({"auths": {urlsplit(home.address).netloc: {"auth": user}}})
            environment["HELM_REGISTRY_CONFIG"] = _private(folder / "registry.json", content)
            return
        environment["HELM_REPOSITORY_CONFIG"] = _private(folder / "repositories.yaml", "{}")
        environment["HELM_REPOSITORY_CACHE"] = str(folder / "cache")
        command = [binary(), "repo", "add", "--username", home.username, "--password-stdin"]
        command += ["--", _REPOSITORY, home.address]
        self._finish(command, environment, home.password, (home.password,), self._stop)

    def _finish(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        text: str,
        secrets: tuple[str, ...],
        stop: Stop,
    ) -> Answer:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches it through the engine's Cancel, once
        )
        with stop.calling(process.terminate):
            output, told = process.communicate(text)
        told = masked(told, secrets)
        if process.returncode:
            reason = " ".join(told.split("Error: ", 1)[-1].split()) or f"exit status {process.returncode}"
            raise HelmError(f"{reason} (cancelled)" if stop.is_set() else reason)
        return Answer(output, tuple(line for line in told.splitlines() if line.strip()))


def chart_name(chart: str, home: Home) -> str:
    """Return how a chart is called in a command that has this home's credentials."""
    return chart if home.is_oci or not home.username else f"{_REPOSITORY}/{chart}"


def _private(path: Path, content: str) -> str:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    return str(path)


def binary() -> str:
    """Return the path of Helm: MODELCAR_HELM, else `helm` from PATH.

    Raises:
        RefusedError: there is none, or it is of another major version or too old.
    """
    chosen = os.environ.get("MODELCAR_HELM", "")
    found = shutil.which(chosen or "helm")
    if not found:
        what = f"MODELCAR_HELM: {chosen} is no program" if chosen else "helm: not on PATH"
        raise RefusedError(f"{what}; a Helm release needs it. allowed: {ALLOWED}. fix: {FIX}")
    version = _version(found)
    numbers = re.match(r"v?(\d+)\.(\d+)\.", version)
    if not numbers or int(numbers[1]) != MINIMUM[0] or int(numbers[2]) < MINIMUM[1]:
        raise RefusedError(f"{found}: is of version {version or '?'}. allowed: {ALLOWED}. fix: {FIX}")
    return found


@functools.cache
def _version(path: str) -> str:
    command = [path, "version", "--template", "{{.Version}}"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def masked(text: str, secrets: Iterable[str]) -> str:
    """Return the text without the secrets, also where they are in base64 as in a Secret."""
    for secret in sorted(secrets, key=len, reverse=True):
        for form in (secret, base64.b64encode(secret.encode()).decode()):
            if len(form) > 2:
                text = text.replace(form, _MASK)
    return text


def secret_texts(value: Any, *, inside: bool = False) -> set[str]:
    """Return every text that is secret within decoded property values."""
    if isinstance(value, Secret):
        return secret_texts(value.value, inside=True)
    if isinstance(value, dict):
        return set().union(*(secret_texts(item, inside=inside) for item in value.values()))
    if isinstance(value, list):
        return set().union(*(secret_texts(item, inside=inside) for item in value))
    return {value} if inside and isinstance(value, str) else set()
