"""An engine of mocks that keeps what a program declares, for the tests of components."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import pulumi
from pulumi.runtime import mocks
from pulumi.runtime.proto import resource_pb2
from pulumi.runtime.settings import SETTINGS
from pulumi.runtime.stack import run_pulumi_func

DIGEST = "sha256:" + "b" * 64
UNKNOWN = "<unknown>"

#: What providers make up for some types, beside the inputs that they return.
OUTPUTS: dict[str, dict[str, Any]] = {
    "pulumi:pulumi:StackReference": {
        "outputs": {"clusterName": "shared", "clusterLocation": "europe-west4"},
        "secretOutputNames": [],
    },
    "gcp:serviceaccount/account:Account": {"email": "nodes@my-project.iam.gserviceaccount.com"},
    "gcp:container/cluster:Cluster": {
        "endpoint": "192.0.2.1",
        "masterAuth": {"clusterCaCertificate": "Q0E="},
        "controlPlaneEndpointsConfig": {"dnsEndpointConfig": {"endpoint": "models.gke.goog"}},
    },
}


#: What functions of providers answer.
ANSWERS: dict[str, dict[Any, Any]] = {
    "gcp:container/getCluster:getCluster": {
        "endpoint": "192.0.2.9",
        "masterAuths": [{"clusterCaCertificate": "Q0E="}],
    },
}


@dataclasses.dataclass(frozen=True)
class Declared:
    """One resource as it was registered."""

    type: str
    urn: str
    parent: str
    inputs: dict[str, Any]
    dependencies: tuple[str, ...]
    protect: bool = False
    before_create: tuple[str, ...] = ()
    before_update: tuple[str, ...] = ()
    on_error: tuple[str, ...] = ()
    imported: str = ""
    ignored: tuple[str, ...] = ()
    #: URNs by which it may be in the state.
    aliases: tuple[str, ...] = ()
    #: Its URN and id; empty for the default one.
    provider: str = ""
    #: How long create, update and delete may take; empty where the provider decides.
    timeouts: tuple[str, str, str] = ("", "", "")


class Monitor(mocks.MockMonitor):
    """A monitor that keeps what is registered."""

    def __init__(self, digest: str | None) -> None:
        super().__init__(Provider(digest))
        self.declared: list[Declared] = []
        self.read: set[str] = set()

    def ReadResource(self, request: Any) -> Any:
        response = super().ReadResource(request)  # type: ignore[no-untyped-call]
        # As the engine does.
        assert response.urn not in self.read, f"Duplicate resource URN '{response.urn}'"
        self.read.add(response.urn)
        return response

    def RegisterResource(self, request: Any) -> Any:
        response = super().RegisterResource(request)  # type: ignore[no-untyped-call]
        if request.type != "pulumi:pulumi:Stack":
            inputs = pulumi.runtime.rpc.deserialize_properties(request.object)
            self.declared.append(
                Declared(
                    request.type,
                    response.urn,
                    request.parent,
                    inputs,
                    tuple(request.dependencies),
                    request.protect,
                    tuple(request.hooks.before_create),
                    tuple(request.hooks.before_update),
                    tuple(request.hooks.on_error),
                    request.importId,
                    tuple(request.ignoreChanges),
                    tuple(request.aliasURNs),
                    request.provider,
                    (
                        request.customTimeouts.create,
                        request.customTimeouts.update,
                        request.customTimeouts.delete,
                    ),
                )
            )
        return response


class Provider(mocks.Mocks):
    """Providers that return their inputs, and for an image the digest."""

    def __init__(self, digest: str | None) -> None:
        self.digest = digest

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        built = (
            {"digest": self.digest}
            if args.typ == "docker-build:index:Image" and self.digest is not None
            else {}
        )
        made = OUTPUTS.get(args.typ, dict[str, Any]())
        return f"{args.name}-id", {**args.inputs, **made, **built}

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        if args.token in ANSWERS:
            return ANSWERS[args.token], []
        raise AssertionError(f"no such function of a provider is called: {args.token}")


@dataclasses.dataclass
class Engine:
    """Runs programs with mocks; each in a context of its own, as the mocks are global otherwise."""

    preview: bool
    stack: str = "stack"
    #: Whether inputs say of a property that there is a secret in it.
    secrets: bool = False
    declared: list[Declared] = dataclasses.field(default_factory=list)
    #: URNs of resources that were read: of StackReferences.
    read: set[str] = dataclasses.field(default_factory=set)
    hooks: dict[str, pulumi.ResourceHook | pulumi.ErrorHook] = dataclasses.field(default_factory=dict)
    #: In place of the real one, which asks a cluster.
    await_rolled_out: mock.Mock = dataclasses.field(default_factory=mock.Mock)
    await_pulled: mock.Mock = dataclasses.field(default_factory=mock.Mock)

    def run(
        self, program: Callable[[], Mapping[str, pulumi.Output[Any]]], digest: str | None = DIGEST
    ) -> dict[str, Any]:
        """Run a program and return its outputs' values; `UNKNOWN` where there is none yet."""
        monitor = Monitor(digest)
        self.declared, self.read = monitor.declared, monitor.read  # of a program that fails, too
        found: dict[str, Any] = {}

        async def declare() -> None:
            for name, output in program().items():
                found[name] = await output.future() if await output.is_known() else UNKNOWN

        async def main() -> None:
            # Of a program that fails, one error is raised; the loop would print those that follow from it.
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)
            SETTINGS.outputs = set()  # set_mocks leaves the one of the program before
            mocks.set_mocks(
                monitor.mocks, stack=self.stack, preview=self.preview, monitor=monitor, organization="acme"
            )
            SETTINGS.monitor_features = {
                resource_pb2.RESOURCE_MONITOR_FEATURE_RESOURCE_HOOKS,
                resource_pb2.RESOURCE_MONITOR_FEATURE_ERROR_HOOKS,
            }
            if self.secrets:
                SETTINGS.monitor_features.add(resource_pb2.RESOURCE_MONITOR_FEATURE_SECRETS)
            await run_pulumi_func(declare)

        def keep_hook(hook: pulumi.ResourceHook | pulumi.ErrorHook) -> asyncio.Future[None]:
            """Hooks run in the real engine only; here a test may call them."""
            # As the engine does: it knows hooks by name.
            assert hook.name not in self.hooks, f"resource hook already registered for name {hook.name!r}"
            self.hooks[hook.name] = hook
            registered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            registered.set_result(None)
            return registered

        self.hooks.clear()
        with (
            mock.patch("pulumi.resource_hooks.register_resource_hook", keep_hook),
            mock.patch("pulumi.resource_hooks.register_error_hook", keep_hook),
            mock.patch("components.kserve.model_service.await_rolled_out", self.await_rolled_out),
            mock.patch("components.kserve.pre_pull.await_pulled", self.await_pulled),
        ):
            contextvars.copy_context().run(asyncio.run, main())
        return found

    def the(self, kind: str) -> Declared:
        """Return the one resource of a type, by the type's last part."""
        [found] = [resource for resource in self.declared if resource.type.split(":")[-1] == kind]
        return found
