"""A stack's settings, as the program gets them, for what is done beside `pulumi up`."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import yaml

from components.cluster.access import Cluster
from components.config.models import load_stack
from components.config.referenced_cluster import at_referenced, unknown
from components.config.settings import Settings
from components.config.stack import Stack
from components.stack.half_written import ATTEMPTS, PAUSE, half_written
from modelcar.errors import InputError, refuse


def settings_of(stack: str, project: Path, model: str | None = None) -> Settings:
    """Return the settings of a model of a stack; model: its name, which a stack with one model need not say.

    Raises:
        InputError: as `stack_of`, or the model is not one of the stack's.
    """
    return stack_of(stack, project).model(model)


def stack_of(stack: str, project: Path) -> Stack:
    """Return the settings of a stack of the selected backend.

    Raises:
        InputError: there is no such stack, Pulumi is missing, or the settings are not fit.
    """
    told = _pulumi(project, "config", "--json", "--show-secrets", "--stack", stack)
    found = {key: entry for key, entry in told.items() if isinstance(entry, dict)}
    values = {
        key: entry["value"] if isinstance(entry.get("value"), str) else json.dumps(entry.get("objectValue"))
        for key, entry in found.items()
    }
    return load_stack(values, project, [key for key, entry in found.items() if entry.get("secret")])


def program_of(stack: str, project: Path) -> str:
    """Return the name of a stack's Pulumi project: its whole name has it, or the project's file.

    Args:
        stack: its name, or ORGANIZATION/PROJECT/STACK.
        project: the folder of the program.
    """
    if stack.count("/") == 2:
        return stack.split("/")[1]
    for path in (project / "Pulumi.yaml", project / "Pulumi.yml"):
        if path.exists():
            return str(yaml.safe_load(path.read_text("utf-8"))["name"])
    return ""


def cluster_of(settings: Settings, project: Path) -> Cluster:
    """Return the cluster that a model's stack deploys to, to ask it.

    Raises:
        InputError: there is no such kubeconfig or context; or as `at_cluster`.
    """
    return Cluster.of(at_cluster(settings, project))


def at_cluster(settings: Settings, project: Path) -> Settings:
    """Return the same settings, which know the cluster that `google.cluster.stackReference` names.

    Raises:
        InputError: the other stack cannot be read, or names no cluster.
    """
    google = settings.google
    reference = google.cluster.stack_reference if google else None
    if google is None or reference is None or settings.kubeconfig or settings.kube_context:
        return settings
    try:
        outputs = outputs_of(reference, project)
    except InputError as error:
        raise unknown(google, error.problems[0].value.removeprefix(f"{reference}: ")) from None
    return settings.model_copy(update={"google": at_referenced(google, outputs)})


def outputs_of(stack: str, project: Path) -> dict[str, Any]:
    """Return the stack's outputs; none before its first `up`.

    Raises:
        InputError: there is no such stack, Pulumi is missing, or another program made the stack.
    """
    found = _pulumi(project, "stack", "output", "--json", "--stack", stack)
    models = found.get("models", {})
    if not isinstance(models, dict) or not all(isinstance(told, dict) for told in models.values()):
        raise refuse(
            "stack",
            f"{stack}: its output models is not what this program writes",
            allowed="a stack of this program",
            fix="name another one; `pulumi stack ls` shows them",
        )
    return found


def _pulumi(project: Path, *arguments: str) -> dict[str, Any]:
    stack = arguments[-1]
    command = ["pulumi", *arguments, "--non-interactive"]
    try:
        result = _run(command, project)
    except FileNotFoundError:
        raise refuse(
            "pulumi",
            "not on PATH",
            allowed="the Pulumi CLI",
            fix='install it, or let this project download or build it: eval "$(python -m local env)"',
        ) from None
    if result.returncode:
        said = result.stderr.strip().splitlines()
        raise refuse(
            "stack",
            f"{stack}: {said[-1].removeprefix('error: ') if said else 'pulumi failed'}",
            allowed="a stack of the backend that is logged in to",
            fix="`pulumi stack ls` shows them; `pulumi login` chooses the backend",
        )
    try:
        found = json.loads(result.stdout or "{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):  # not shown: it may hold secrets
        raise refuse(
            "pulumi",
            f"`pulumi {' '.join(arguments[:2])}` answers no JSON object",
            allowed="the Pulumi CLI",
            fix="look at which `pulumi` is first on PATH (`command -v pulumi`)",
        )
    return found


def _run(command: list[str], project: Path) -> subprocess.CompletedProcess[str]:
    for left in reversed(range(ATTEMPTS)):
        result = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
        if not result.returncode or not left or not half_written(result.stderr):
            break
        time.sleep(PAUSE)  # a deployment of this stack is under way
    return result
