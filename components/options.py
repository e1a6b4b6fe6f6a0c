"""Options of resources inside of components."""

from __future__ import annotations

from collections.abc import Collection

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


def imported(
    options: pulumi.ResourceOptions, kind: str, imports: Collection[str], identity: str
) -> pulumi.ResourceOptions:
    """Return the options with which Pulumi takes over what is there, where the stack says so of this kind.

    It fails where there is none, and updates it where it is not as declared. Once the resource is in the
    state this does nothing.

    Args:
        options: of the resource in any case.
        kind: of the resource. imports: the kinds that the stack names.
        identity: what the provider knows it by.
    """
    if kind not in imports:
        return options
    return pulumi.ResourceOptions.merge(options, pulumi.ResourceOptions(import_=identity))


def formerly(parent: pulumi.Resource, name: str) -> pulumi.ResourceOptions:
    """Return the options of a component that stood in the stack by this name before it had a parent."""
    return pulumi.ResourceOptions(
        parent=parent, aliases=[pulumi.Alias(name=name, parent=pulumi.ROOT_STACK_RESOURCE)]
    )
