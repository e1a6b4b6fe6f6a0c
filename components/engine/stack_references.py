"""Other stacks' outputs: one StackReference for each stack in a run, however many components read it."""

from __future__ import annotations

import pulumi

from components.engine.one_run import OfOneRun

#: By the stack's name and the type of the reference's parent, which its URN has too.
_made: OfOneRun[dict[tuple[str, str], pulumi.StackReference]] = OfOneRun(dict)


def stack_reference(name: str, opts: pulumi.ResourceOptions | None = None) -> pulumi.StackReference:
    """Return the reference to a stack; the engine takes no second resource of the same URN.

    Args:
        name: ORGANIZATION/PROJECT/STACK.
        opts: of the reference, where there is none yet.
    """
    parent = opts.parent if opts is not None else None
    made = _made.get()
    key = (name, parent.pulumi_resource_type if parent is not None else "")
    if key not in made:
        made[key] = pulumi.StackReference(name, stack_name=name, opts=opts)
    return made[key]
