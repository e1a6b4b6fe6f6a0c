"""A deployed service keeps its name, unless the stack says another one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from components.config.problems import NAMESPACE, problem
from components.config.stack import Stack
from modelcar.errors import Problem


def problems(stack: Stack, outputs: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the problem of a service whose name follows from the model, and would change.

    KServe cannot rename a service: it would be deleted, and its clients would lose the address.

    Args:
        stack: its settings.
        outputs: of the last run.
    """
    before, now = outputs.get("serviceName"), stack.shared.service_name
    if stack.service_named or not before or before == now:
        return
    yield problem(
        "serviceName",
        f"not set: the model's name makes it {now}, and the deployed service is {before}",
        f"{before}, which keeps the service and its address; or {now}, which makes a new one in its place",
        f"pulumi config set {NAMESPACE}:serviceName {before}",
    )
