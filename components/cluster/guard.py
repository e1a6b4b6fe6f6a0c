"""An object of a cluster that is not this stack's is not taken over unasked, and a refusal says what to do.

What the provider does with an object that exists already depends on its version: 4.25 applies onto it
(server-side apply), so that fields of both stand side by side and `destroy` deletes what somebody else made;
4.34 refuses. So the cluster is asked right before an object is made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pulumi

from components.cluster.existing import refuse_existing, ways_of
from components.config.arguments import validated
from components.config.cluster import DestinationSettings
from components.engine.hooks import error_hook, resource_hook
from components.engine.inputs import Arguments, is_known
from components.engine.threads import in_thread
from modelcar.errors import InputError

#: What the provider, or the API server behind it, says; and what to do.
_GONE = (
    "somebody deleted it past Pulumi, whose state still has it. fix: `pulumi up --refresh` makes it anew "
    "(docs/troubleshooting.md)"
)


#: Arguments, by the settings of a stack that say the same.
_ARGUMENTS = {"kubeconfig": "access.kubeconfig", "kubeContext": "access.context"}


@dataclass(frozen=True)
class ClusterAccess(Arguments):
    """How a cluster is asked by the program itself, beside the provider that declares objects in it.

    kubeconfig: its text or path; None for what the machine has (KUBECONFIG, ~/.kube/config).
    context: in it; the current one where None.
    """

    kubeconfig: pulumi.Input[str] | Path | None = None
    context: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is no kubeconfig and no context; what another resource produces is looked at later.

        Raises:
            modelcar.errors.InputError: with everything that is wrong, as arguments of `access`.
        """
        try:
            super().__post_init__()
        except InputError as error:
            raise InputError(
                replace(one, key=f"access.{one.key}", fix=one.fix.replace(one.key, f"access.{one.key}"))
                for one in error.problems
            ) from None
        if isinstance(self.kubeconfig, Path):
            object.__setattr__(self, "kubeconfig", str(self.kubeconfig))
        known = {"kubeconfig": self.kubeconfig} if is_known(self.kubeconfig) else {}
        validated(DestinationSettings, {**known, "kube_context": self.context}, _ARGUMENTS)

    def place(self, kubeconfig: str | None) -> DestinationSettings:
        """Return how the cluster is reached, once its kubeconfig is known."""
        return DestinationSettings(kubeconfig=kubeconfig, kube_context=self.context)


def guarded(kind: str, name: str, access: ClusterAccess | None) -> pulumi.ResourceHookBinding | None:
    """Return the hooks of a Kubernetes object; None in a preview, and where the cluster is not asked.

    Args:
        kind: of the object, or what it is for.
        name: of the resource.
        access: how the cluster is asked.
    """
    if access is None or pulumi.runtime.is_dry_run():
        return None
    known: list[Any] = []
    pulumi.Output.from_input(access.kubeconfig).apply(known.append)

    async def absent(args: pulumi.ResourceHookArgs) -> None:
        if access.kubeconfig is not None and not known:
            return  # it is not known which cluster; the current one is another
        place = access.place(known[0] if known else None)
        await in_thread(refuse_existing, place, args.new_inputs or {}, kind)

    def explain(args: pulumi.ErrorHookArgs) -> bool:
        if told := explanation(kind, args.failed_operation, args.errors):
            pulumi.log.error(f"{args.name}: {told}")
        return False  # no retry

    return pulumi.ResourceHookBinding(
        before_create=[resource_hook(f"absent-{kind}-{name}", absent)],
        on_error=[error_hook(f"explain-{kind}-{name}", explain)],
    )


def explanation(kind: str, operation: str, errors: list[str]) -> str | None:
    """Return what to do about a refusal; None where it says it itself.

    Args:
        kind: of the object, or what it is for.
        operation: create, update or delete. errors: the newest first.
    """
    said = errors[0] if errors else ""
    if operation == "create" and "already exists" in said:
        ways = ways_of(kind)
        own = ways.takes_over or "`pulumi import` it, or delete it"
        return (
            f"it is there already. fix: if an `up` of this stack made it and broke off, {own}; if another "
            f"stack or somebody else did, choose {ways.instead} (docs/troubleshooting.md)"
        )
    if operation == "update" and "not found" in said:
        return _GONE
    return None
