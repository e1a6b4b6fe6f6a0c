"""How nodes may pull modelcars from a registry that does not know them by themselves.

On Google Cloud the nodes' service account may read the repository, and none of this is needed. Elsewhere
the pod's ServiceAccount carries imagePullSecrets. (KServe's storage secrets are for s3:// and the like; it
never applies them to oci:// URIs.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes

from components.engine.inputs import Arguments
from components.engine.options import OWNED, child
from components.kserve.spec import checked_name, checked_namespace
from components.manifests.pull_secret import encoded_docker_config
from modelcar.errors import InputError, Problem


@dataclass(frozen=True, kw_only=True)
class PullAccessArgs(Arguments):
    """Whose pods may pull, and with which credentials: those of an existing Secret, or a user's.

    service: Name of the InferenceService whose pods pull. The ServiceAccount gets the same name.
    namespace: Namespace of the InferenceService.
    host: Host of the registry.
    secret: Name of an existing Secret of type kubernetes.io/dockerconfigjson.
    username: User of the registry, to make such a Secret.
    password: Password of that user. It is kept as a Pulumi secret.
    """

    service: str
    namespace: pulumi.Input[str]
    host: pulumi.Input[str]
    secret: pulumi.Input[str] | None = None
    username: pulumi.Input[str] | None = None
    password: pulumi.Input[str] | None = None

    @property
    def said(self) -> frozenset[str]:
        """Which of secret, username and password are set; of an output nobody knows its value yet."""
        names = ("secret", "username", "password")
        return frozenset(name for name in names if getattr(self, name) not in {None, ""})

    def check(self) -> None:
        """Refuse anything but one of both: an existing Secret, or a user with a password.

        Raises:
            modelcar.errors.InputError: neither is there, or both are, or a half.
        """
        if self.said not in ({"secret"}, {"username", "password"}):
            found = f"set: {', '.join(sorted(self.said)) or 'none'}"
            fix = "name the Secret that is there, or give the registry's user and password, and not both"
            allowed = "secret, or username and password"
            raise InputError([Problem("secret, username, password", found, allowed, fix)])


class PullAccess(pulumi.ComponentResource):
    """A ServiceAccount with the right to pull, and no token for the API server.

    Outputs:
        service_account: its name.

    Raises:
        modelcar.errors.InputError: a name is wrong; or neither a Secret nor credentials are named, or
            both, or a half of them.
    """

    service_account: pulumi.Output[str]

    def __init__(self, name: str, args: PullAccessArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the ServiceAccount, and the Secret where the stack has credentials."""
        super().__init__("modelcar:kserve:PullAccess", name, None, opts)
        args.check()
        checked_name("service", args.service)
        namespace = checked_namespace(args.namespace)
        secret: pulumi.Input[str]
        if args.secret and "secret" in args.said:
            secret = checked_name("secret", args.secret)
        else:
            made = kubernetes.core.v1.Secret(
                f"{name}-credentials",
                metadata={
                    "name": f"{args.service}-registry",
                    "namespace": namespace,
                    "annotations": OWNED,
                },
                type="kubernetes.io/dockerconfigjson",
                data={
                    ".dockerconfigjson": docker_config(replace(args, host=checked_name("host", args.host)))
                },
                opts=child(self, opts),
            )
            secret = made.metadata.apply(lambda metadata: str(metadata.name))
        account = kubernetes.core.v1.ServiceAccount(
            name,
            metadata={"name": args.service, "namespace": namespace, "annotations": OWNED},
            image_pull_secrets=[{"name": secret}],
            automount_service_account_token=False,
            opts=child(self, opts),
        )
        self.service_account = account.metadata.apply(lambda metadata: str(metadata.name))
        self.register_outputs({"serviceAccount": self.service_account})


def docker_config(args: PullAccessArgs) -> pulumi.Output[str]:
    """Return the registry's credentials as a pull secret holds them, marked as secret."""

    def config(found: list[str | None]) -> str:
        host, username, password = found
        if not username or not password:
            raise pulumi.RunError("username, password: an output without a value; a registry's user has both")
        return encoded_docker_config(str(host), username, password)

    known: Any = pulumi.Output.all(args.host, args.username, pulumi.Output.secret(args.password or ""))
    made: pulumi.Output[str] = known.apply(config)
    return made
