"""Hooks of resources by names that the engine takes.

The engine knows a hook by its name alone, in the whole program, while resources may be called alike below
parents of different types. The state keeps these names, so they are the same in each run, and the first one
of a name is called as versions before called it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

import pulumi

from components.engine.one_run import OfOneRun

_names: OfOneRun[Counter[str]] = OfOneRun(Counter)


def resource_hook(
    name: str,
    run: Callable[[pulumi.ResourceHookArgs], Awaitable[None] | None],
    options: pulumi.ResourceHookOptions | None = None,
) -> pulumi.ResourceHook:
    """Return a hook.

    Args:
        name: what it is for, and of which resource.
        run: what it does. options: of Pulumi's.
    """
    return pulumi.ResourceHook(_unique(name), run, options)


def error_hook(name: str, run: Callable[[pulumi.ErrorHookArgs], Awaitable[bool] | bool]) -> pulumi.ErrorHook:
    """Return a hook of an operation that fails.

    Args:
        name: what it is for, and of which resource.
        run: returns whether the operation is tried again.
    """
    return pulumi.ErrorHook(_unique(name), run)


def _unique(name: str) -> str:
    """Return a name that no other hook of this run has."""
    found = _names.get()
    found[name] += 1
    return name if found[name] == 1 else f"{name}#{found[name]}"
