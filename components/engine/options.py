"""Options of resources inside of components."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, cast

import pulumi


def child(
    parent: pulumi.Resource, opts: pulumi.ResourceOptions | None, *after: pulumi.Input[pulumi.Resource]
) -> pulumi.ResourceOptions:
    """Return the options of a component's child, which waits for what the component was told to wait for.

    Pulumi hands a component's provider down to its children, and its depends_on not.
    """
    # Merged by Pulumi, which also takes outputs of resources for depends_on, and those of lists.
    waits = pulumi.ResourceOptions(depends_on=opts.depends_on if opts is not None else None)
    own = pulumi.ResourceOptions(parent=parent, depends_on=list(after))
    return pulumi.ResourceOptions.merge(waits, own)


def is_protected(opts: pulumi.ResourceOptions | None) -> bool:
    """Tell whether a component's own options protect it; that its parent is, Pulumi alone knows."""
    return opts is not None and bool(opts.protect)


def once_there(value: pulumi.Input[Any]) -> pulumi.Input[pulumi.Resource]:
    """Return for `depends_on` what names no resource, and lets one wait for a value; fails where it does.

    What is declared stays plain, so that a preview shows its difference, and no secret of the value gets into
    it. A value that stays unknown is not waited for: Pulumi skips what depends on a resource that failed.
    """
    none: pulumi.Output[None] = pulumi.Output.from_input(value).apply(lambda _: None)
    return cast("pulumi.Output[pulumi.Resource]", none)


#: What Kubernetes objects consist of, whoever made them.
OBJECT = ("metadata", "spec")

#: Annotations of every Kubernetes object that this program declares: what it says of an object holds, whoever
#: else has set the same field (server-side apply with `force`, as Kubernetes has it of controllers). Without,
#: the provider's preview ends with a conflict once kubectl has set one, and shows no difference; its update
#: takes kubectl's fields over, but nobody else's. Fields that are not declared stay whose they are.
#: https://kubernetes.io/docs/reference/using-api/server-side-apply/#conflicts
OWNED = {"pulumi.com/patchForce": "true"}


def imported(
    options: pulumi.ResourceOptions,
    kind: str,
    imports: Collection[str],
    identity: str,
    kept: Sequence[str] = OBJECT,
    hooks: pulumi.ResourceHookBinding | None = None,
) -> pulumi.ResourceOptions:
    """Return the options with which Pulumi takes over what is there, where the stack says so of this kind.

    It is taken over as it is: nothing of it changes as long as the stack says so. Pulumi fails where there is
    none. Once the stack does not say so any more, a preview shows what this program changes of it.

    Args:
        options: of the resource in any case.
        kind: of the resource. imports: the kinds that the stack names.
        identity: what the provider knows it by.
        kept: the inputs that may be other ones than those declared.
        hooks: of what this stack makes itself.
    """
    if kind not in imports:
        return pulumi.ResourceOptions.merge(options, pulumi.ResourceOptions(hooks=hooks))
    own = pulumi.ResourceOptions(import_=identity, ignore_changes=list(kept))
    return pulumi.ResourceOptions.merge(options, own)


def formerly(parent: pulumi.Resource, name: str) -> pulumi.ResourceOptions:
    """Return the options of a component that stood in the stack by this name before it had a parent."""
    return pulumi.ResourceOptions(
        parent=parent, aliases=[pulumi.Alias(name=name, parent=pulumi.ROOT_STACK_RESOURCE)]
    )


def renamed(options: pulumi.ResourceOptions, former: str) -> pulumi.ResourceOptions:
    """Return the options of a resource that had another name beside the same parent."""
    return pulumi.ResourceOptions.merge(options, pulumi.ResourceOptions(aliases=[pulumi.Alias(name=former)]))


def unknown() -> pulumi.Output[str]:
    """Return an output whose value is not known yet."""
    return pulumi.Output.from_input(pulumi.UNKNOWN)  # type: ignore[arg-type]
