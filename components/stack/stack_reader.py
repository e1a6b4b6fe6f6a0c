"""For programs of other teams: a stack's outputs through a StackReference, typed and checked.

from modelcar_kserve import read_stack

models = read_stack("acme/modelcar/prod").apply(lambda stack: stack.models)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
from pydantic import ValidationError

from components.engine.stack_references import stack_reference
from components.stack.output_schema import VERSION, StackOutputs


def read_stack(name: str, opts: pulumi.ResourceOptions | None = None) -> pulumi.Output[StackOutputs]:
    """Return the outputs of a modelcar stack, which may be read as often as a program likes.

    Args:
        name: ORGANIZATION/PROJECT/STACK, as `pulumi stack ls` shows it.
        opts: of the StackReference; of a stack that the program reads already, those it was read with count.

    Raises (inside of the output):
        pulumi.RunError: the stack was never deployed, or its outputs are of another major version.
    """
    return stack_reference(name, opts).outputs.apply(lambda found: parse(name, found))


def parse(name: str, found: Mapping[str, Any]) -> StackOutputs:
    """Return a stack's outputs; name: of the stack, for messages.

    Raises:
        pulumi.RunError: as `read_stack`.
    """
    version = found.get("schemaVersion")
    if version is None:
        raise pulumi.RunError(
            f"{name} has no outputs of a modelcar stack: deploy it first, or check the name"
        )
    wanted = VERSION.partition(".")[0]
    if str(version).partition(".")[0] != wanted:
        raise pulumi.RunError(
            f"{name} tells its outputs in version {version}, and this reader knows {wanted}.x: take the "
            "reader of the stack's release (docs/outputs.md says what changed)"
        )
    try:
        return StackOutputs.model_validate(dict(found))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise pulumi.RunError(f"{name}: outputs that do not keep to version {version}: {problems}") from None
