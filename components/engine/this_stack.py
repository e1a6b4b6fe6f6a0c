"""The stack that Pulumi is running, and its mark on what it makes."""

from __future__ import annotations

import pulumi

from components.engine.options import OWNED

#: Annotation that names the stack which made an object. Not on InferenceServices and ServingRuntimes: KServe
#: hands their annotations on to pods, and a new one would replace these.
MARK = "modelcar/stack"


def this_stack() -> str:
    """Return ORGANIZATION/PROJECT/STACK of the stack that Pulumi is running."""
    return f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}"


def marked() -> dict[str, str]:
    """Return annotations of an object that others may want too: whose it is, and that what is said holds."""
    return {**OWNED, MARK: this_stack()}
