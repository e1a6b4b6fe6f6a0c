"""The environment in which Pulumi runs the local stack, and the calls to its command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from local.instance import PROJECT, Instance, state_root
from local.tools import Toolbox

STACK = "local"


class PulumiError(Exception):
    """Pulumi ended with an error; it has already printed why."""


def environment(instance: Instance, tools: Toolbox) -> dict[str, str]:
    """Return the variables that make plain `pulumi` commands work on this stack, without any prompt.

    The user's own backend and passphrase win where they are set. The local stack has no secrets, so the
    empty passphrase of its file backend protects nothing that is worth protecting.
    """
    variables = {
        "PATH": tools.path,
        "BUILDX_CONFIG": str(instance.buildx_config),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_AUTOMATION_API_SKIP_VERSION_CHECK": "true",
    }
    if "PULUMI_BACKEND_URL" not in os.environ:
        backend = state_root() / "pulumi"
        backend.mkdir(parents=True, exist_ok=True)
        variables["PULUMI_BACKEND_URL"] = backend.as_uri()
    if not {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & os.environ.keys():
        variables["PULUMI_CONFIG_PASSPHRASE"] = ""
    return variables


def pulumi(instance: Instance, tools: Toolbox, *arguments: str, capture: bool = False) -> str:
    """Run `pulumi` in the project; return its output where it is captured.

    Raises:
        PulumiError: it ended with an error.
    """
    result = subprocess.run(
        [tools["pulumi"], *arguments, "--non-interactive"],
        cwd=PROJECT,
        env={**os.environ, **environment(instance, tools)},
        stdout=subprocess.PIPE if capture else None,
        stderr=subprocess.PIPE if capture else None,
        text=True,
        check=False,
    )
    if result.returncode:
        if capture:
            print(result.stdout, result.stderr, sep="\n", file=sys.stderr)
        raise PulumiError(f"pulumi {' '.join(arguments)}: exit status {result.returncode}")
    return result.stdout or ""


def select(instance: Instance, tools: Toolbox) -> None:
    """Create the stack unless it is there, and make it the current one."""
    pulumi(instance, tools, "stack", "select", STACK, "--create", capture=True)


def outputs(instance: Instance, tools: Toolbox) -> dict[str, Any]:
    """Return the stack's outputs."""
    text = pulumi(instance, tools, "stack", "output", "--json", "--stack", STACK, capture=True)
    found: dict[str, Any] = json.loads(text)
    return found


def config_file() -> Path:
    """Return the stack's configuration file."""
    return PROJECT / f"Pulumi.{STACK}.yaml"
