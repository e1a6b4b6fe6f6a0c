"""The service account that GPU nodes run as."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_gcp as gcp

from components.engine.hooks import error_hook
from components.engine.inputs import Arguments
from components.engine.options import child
from components.google.names import account_id

#: Logs and metrics, and no more: https://cloud.google.com/kubernetes-engine/docs/how-to/service-accounts
NODE_ROLE = "roles/container.defaultNodeServiceAccount"
#: Image streaming asks the Service Usage API:
#: https://cloud.google.com/kubernetes-engine/docs/how-to/image-streaming#requirements
STREAMING_ROLE = "roles/serviceusage.serviceUsageConsumer"
#: Said where the id is somebody else's.
TAKEN = (
    "a service account of that id is in the project already, and this stack did not make it. If its nodes "
    "may run as it, name it in modelcar:google.nodes.serviceAccount. If an `up` of this stack made it and "
    "broke off, `pulumi import` it (docs/troubleshooting.md, 'an up was killed while Google made "
    "something'). In a program of your own, change the purpose"
)


@dataclass(frozen=True, kw_only=True)
class NodeServiceAccountArgs(Arguments):
    """Whose account it is.

    project: Id of the project.
    purpose: What the account is named by, when it is made; unique in the project. One that is there keeps its
        id, whatever it says later.
    image_streaming: Whether the nodes stream images, which takes one role more.
    """

    project: pulumi.Input[str]
    purpose: str
    image_streaming: bool = False


class NodeServiceAccount(pulumi.ComponentResource):
    """A service account with the least that a GKE node needs; without keys.

    A node that starts before the roles are granted cannot report itself: let pools depend on the component.

    Outputs:
        email: what node pools and grants name it by; known once it is there.
    """

    email: pulumi.Output[str]

    def __init__(
        self, name: str, args: NodeServiceAccountArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Declare the account and its roles."""
        super().__init__("modelcar:google:NodeServiceAccount", name, None, opts)
        own = child(self, opts)
        account = gcp.serviceaccount.Account(
            name,
            project=args.project,
            account_id=account_id(args.purpose),
            display_name=f"GKE nodes of {args.purpose}",
            opts=pulumi.ResourceOptions.merge(
                own,
                # Of life: with another id nodes, their pools and the models on them would be made anew.
                pulumi.ResourceOptions(ignore_changes=["accountId", "displayName"], hooks=_explained(name)),
            ),
        )
        roles = [NODE_ROLE, STREAMING_ROLE] if args.image_streaming else [NODE_ROLE]
        for role in roles:
            gcp.projects.IAMMember(
                f"{name}-{role.partition('.')[2]}",
                project=args.project,
                role=role,
                member=account.email.apply(lambda email: f"serviceAccount:{email}"),
                opts=own,
            )
        # Without the grants in it: a preview of one more would show every pool as replaced.
        self.email = account.email
        self.register_outputs({"email": self.email})


def _explained(name: str) -> pulumi.ResourceHookBinding | None:
    """Return what says what to do about an id that is taken; None in a preview, which makes nothing."""
    if pulumi.runtime.is_dry_run():
        return None

    def explain(args: pulumi.ErrorHookArgs) -> bool:
        said = args.errors[0] if args.errors else ""
        if args.failed_operation == "create" and "already exists" in said.lower():
            pulumi.log.error(f"{args.name}: {TAKEN}")
        return False  # no retry

    return pulumi.ResourceHookBinding(on_error=[error_hook(f"explain-Account-{name}", explain)])
