"""An object of a cluster that is not this stack's is not taken over unasked, and a refusal says what to do.

What the provider does with an object that exists already depends on its version: 4.25 applies onto it
(server-side apply), so that fields of both stand side by side and `destroy` deletes what somebody else made;
4.34 refuses. So the cluster is asked right before an object is made.
"""

from __future__ import annotations

import pulumi

from components.cluster.existing import refuse_existing
from components.config.settings import Settings
from components.engine.threads import in_thread

#: What the provider, or the API server behind it, says; and what to do.
_EXISTS = (
    "it is there already. If an `up` of this stack made it and broke off, `pulumi import` it or delete it; "
    "if somebody else did, modelcar:importExisting or importObjects takes it over as it is (docs/migrate.md)"
)
_GONE = (
    "somebody deleted it past Pulumi, whose state still has it. fix: `pulumi up --refresh` makes it anew "
    "(docs/troubleshooting.md)"
)


def guarded(
    kind: str, name: str, settings: Settings, kubeconfig: pulumi.Input[str] | None = None
) -> pulumi.ResourceHookBinding | None:
    """Return the hooks of a Kubernetes object; None in a preview.

    Args:
        kind: of the object: a namespace may be called as a model, and the engine knows hooks by name alone.
        name: of the resource.
        settings: how the cluster is reached.
        kubeconfig: of the cluster, where the settings have none.
    """
    if pulumi.runtime.is_dry_run():
        return None
    known: list[str] = []
    if kubeconfig is not None:
        pulumi.Output.from_input(kubeconfig).apply(known.append)

    async def absent(args: pulumi.ResourceHookArgs) -> None:

        own = settings.reached_by(known[0] if known else None)
        await in_thread(refuse_existing, own, args.new_inputs or {})

    def explain(args: pulumi.ErrorHookArgs) -> bool:
        if told := explanation(args.failed_operation, args.errors):
            pulumi.log.error(f"{args.name}: {told}")
        return False  # no retry

    return pulumi.ResourceHookBinding(
        before_create=[pulumi.ResourceHook(f"absent-{kind}-{name}", absent)],
        on_error=[pulumi.ErrorHook(f"explain-{kind}-{name}", explain)],
    )


def explanation(operation: str, errors: list[str]) -> str | None:
    """Return what to do about a refusal; None where it says it itself.

    Args:
        operation: create, update or delete. errors: the newest first.
    """
    said = errors[0] if errors else ""
    if operation == "create" and "already exists" in said:
        return _EXISTS
    if operation == "update" and "not found" in said:
        return _GONE
    return None
