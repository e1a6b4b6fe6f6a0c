"""The configuration of the stack that Pulumi is running."""

from __future__ import annotations

from pathlib import Path

import pulumi

from components.config import deprecations
from components.config.checks.secrets import not_kept
from components.config.models import load_stack
from components.config.problems import NAMESPACE
from components.config.stack import Stack
from components.engine.told_once import warn_once
from modelcar.errors import InputError, refuse


def from_pulumi(project: Path) -> Stack:
    """Return the settings of the stack that Pulumi is running; warn of those that are deprecated.

    Raises:
        InputError: as `load_stack`; or a secret would be written for everybody to read.
    """
    # pulumi.Config reads one key at a time; a misspelt key is found only by looking at all of them.
    config = pulumi.runtime.get_config_env()
    # Before the settings are checked: a stack that is refused should not hear of it one run later.
    warn_once(deprecations.warning(place, entry) for place, entry in deprecations.in_settings(config))
    stack = load_stack(config, project, [key for key in config if pulumi.runtime.is_config_secret(key)])
    if problems := list(not_kept(stack.secrets)):
        raise InputError(problems)
    key = f"{NAMESPACE}:registryPassword"
    if stack.shared.registry_password and not pulumi.runtime.is_config_secret(key):
        raise refuse(
            key,
            "stands in the stack's file for everybody to read (not shown)",
            allowed="a Pulumi secret",
            fix=f"change the password, then: pulumi config set --secret {key}",
        )
    return stack
