"""Options of resources inside of components."""

from __future__ import annotations

import pulumi


def child(
    parent: pulumi.Resource, opts: pulumi.ResourceOptions | None, *after: pulumi.Resource
) -> pulumi.ResourceOptions:
    """Return the options of a component's child, which waits for what the component was told to wait for.

    Pulumi hands a component's provider down to its children, and its depends_on not.
    """
    given = opts.depends_on if opts is not None and opts.depends_on is not None else []
    waits = [given] if isinstance(given, pulumi.Resource) else list(given)  # type: ignore[arg-type]
    return pulumi.ResourceOptions(parent=parent, depends_on=[*waits, *after])


def formerly(parent: pulumi.Resource, name: str) -> pulumi.ResourceOptions:
    """Return the options of a component that stood in the stack by this name before it had a parent."""
    return pulumi.ResourceOptions(
        parent=parent, aliases=[pulumi.Alias(name=name, parent=pulumi.ROOT_STACK_RESOURCE)]
    )
