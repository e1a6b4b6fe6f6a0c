"""How a run ends where models failed: the others are there, and one error names all that are not."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, NoReturn

import pulumi

from components.engine import left_out
from components.engine.left_out import LeftOutError
from components.stack.model import Model


class FailedInEngineError(Exception):
    """The engine could not register a resource; it has said why by then."""

    def __init__(self) -> None:
        # One that never was made, and that `--target` leaves out, looks the same from here.
        said = "as the engine says above, unless this run leaves it out"
        super().__init__(f"{said}; `pulumi up` goes on from here")


class Registrations:
    """Every resource that is declared from now on, so that the end can wait for all of them."""

    def __init__(self) -> None:
        """Note them from here on; needs a running program."""
        self._resources: list[pulumi.Resource] = []
        pulumi.runtime.register_stack_transformation(self._note)

    def _note(self, args: pulumi.ResourceTransformationArgs) -> None:
        self._resources.append(args.resource)

    async def settled(self) -> None:
        """Return once the engine has answered for each resource, or an input of it failed."""
        for resource in self._resources:
            with contextlib.suppress(Exception):  # the models that it belongs to tell it
                await resource.urn.future()


async def outcomes(models: Mapping[str, Model]) -> tuple[dict[str, Any], dict[str, Exception]]:
    """Wait for every model, whatever becomes of the others.

    Returns:
        The outputs of those that serve, and the errors of those that failed, by key: one that serves, and
        whose ScaledObject was refused, is in both. An output that a preview does not know yet is there too.
        One that this run leaves out has LeftOutError.
    """
    found: dict[str, Any] = {}
    failed: dict[str, Exception] = {}
    for key, model in models.items():
        error = await _error_of(model.done)
        if error is None and key in left_out.names():
            failed[key] = LeftOutError()
            continue
        if error:
            failed[key] = error
        if error is None or (not pulumi.runtime.is_dry_run() and await _error_of(model.served) is None):
            found[key] = model.outputs
    return found, failed


async def _error_of(output: pulumi.Output[Any]) -> Exception | None:
    """Return why an output is not there; None where it is."""
    try:
        await output.future()
        # With `--continue-on-error`, what needs a failed resource stays unknown (SDK 3.271 and later).
        there = pulumi.runtime.is_dry_run() or await output.is_known()
    except Exception as error:
        return FailedInEngineError() if _is_the_sdks(error) else error
    return None if there else FailedInEngineError()


def _is_the_sdks(error: Exception) -> bool:
    """Tell whether the SDK made up an error for what failed in the engine, as those before 3.271 do.

    Their class is not public, so it is known by where it comes from.
    """
    return type(error).__module__.startswith("pulumi.") and not isinstance(error, pulumi.RunError)


def end_with(message: str) -> NoReturn:
    """End the program with an error that names every failure.

    Where registrations failed, the SDK ends with the error of the newest one in place of the program's, and
    shows a traceback where that is none of ours. So one more is made to fail, with the same words
    (docs/decisions/0008). tests/engine/test_sdk_versions.py sees it if a release of the SDK ends otherwise.

    Raises:
        pulumi.RunError: with the message.
    """

    async def fail() -> NoReturn:
        raise pulumi.RunError(message)

    stack = pulumi.runtime.get_root_resource()
    if isinstance(stack, pulumi.ComponentResource):
        # Fails before anything is sent: the stack's own outputs are registered after it, and are kept.
        stack.register_outputs({"failed": fail()})
    raise pulumi.RunError(message)
