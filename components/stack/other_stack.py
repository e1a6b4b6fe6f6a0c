"""Outputs of a stack, and what its state has, read before the first resource is declared.

Not by a StackReference, which is a resource: what is wrong has to be told before the first one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

import pulumi

from components.config.referenced_cluster import unknown
from components.config.stack import Stack
from components.engine.this_stack import this_stack
from components.stack.half_written import ATTEMPTS, PAUSE, half_written
from modelcar.errors import InputError

#: What Pulumi says where the backend is of files or a bucket.
_NO_ORGANIZATION = "organization"
#: Functions of the engine, and what each calls the name of a stack.
_OUTPUTS = ("pulumi:pulumi:readStackOutputs", "name")
_RESOURCES = ("pulumi:pulumi:readStackResourceOutputs", "stackName")


async def outputs(name: str) -> Mapping[str, Any]:
    """Return another stack's outputs.

    Raises:
        pulumi.RunError: they cannot be read.
    """
    if name == this_stack():
        raise pulumi.RunError("it is this stack itself")
    return await outputs_of(name)


async def own_outputs() -> Mapping[str, Any]:
    """Return the outputs of this stack's last run; none before the first one.

    Raises:
        pulumi.RunError: they cannot be read.
    """
    return await _own(_OUTPUTS)


async def own_resources() -> Collection[str]:
    """Return the URNs of what this stack's state has; none before the first run.

    Raises:
        pulumi.RunError: they cannot be read.
    """
    return (await _own(_RESOURCES)).keys()


async def outputs_of(name: str) -> Mapping[str, Any]:
    """Return a stack's outputs; none where there was no `up` yet, which the engine does not call an error.

    Raises:
        pulumi.RunError: they cannot be read.
    """
    return await _read(_OUTPUTS, name)


async def _own(asked: tuple[str, str]) -> Mapping[str, Any]:
    try:
        return await _read(asked, this_stack())
    except pulumi.RunError:
        if pulumi.get_organization() != _NO_ORGANIZATION:
            raise
        try:  # files and buckets of Pulumi 3.60 and older know no projects
            return await _read(asked, pulumi.get_stack())
        except pulumi.RunError:
            pass
        raise


async def _read(asked: tuple[str, str], name: str) -> Mapping[str, Any]:
    function, argument = asked
    for left in reversed(range(ATTEMPTS)):
        try:
            answer = await pulumi.runtime.invoke_async(function, {argument: name})
            break
        except Exception as error:  # the SDK raises a bare Exception for whatever the engine says
            said = _last_words(error)
        if not left or not half_written(said):
            raise pulumi.RunError(said)
        await asyncio.sleep(PAUSE)
    found = (answer or {}).get("outputs")
    return found if isinstance(found, dict) else {}


def _last_words(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[-1] if lines else type(error).__name__
    return said.rpartition("error: ")[2].removeprefix("* ")


async def at_cluster(stack: Stack) -> Stack:
    """Return the stack, whose models know the cluster that `google.cluster.stackReference` names.

    Raises:
        InputError: the other stack cannot be read, or names no cluster, and this one does not say by itself
            how its cluster is reached.
    """
    google, shared = stack.google, stack.shared
    if google is None or google.cluster.stack_reference is None:
        return stack
    try:
        return stack.at_cluster(await outputs(google.cluster.stack_reference))
    except InputError as error:
        refused = error
    except pulumi.RunError as error:
        refused = unknown(google, str(error))
    if shared.kubeconfig or shared.kube_context:
        return stack  # and nothing asks for it but Google's resources
    raise refused
