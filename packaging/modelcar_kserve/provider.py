"""The component provider: the same components for programs in TypeScript, Go, C#, Java and YAML.

Pulumi reads its schema from the types, and makes an SDK of it: `pulumi package add …/packaging/plugin`.
Google's components are there where pulumi-gcp is installed.
"""

# Without `from __future__ import annotations`: Pulumi reads the types themselves.
from importlib.util import find_spec

import pulumi

import modelcar_kserve as components
from modelcar_kserve import provider_types as types
from modelcar_kserve.components.config import arguments
from modelcar_kserve.modelcar.version import semver
from modelcar_kserve.provider_arguments import NAME, Provided, as_property
from modelcar_kserve.provider_host import serve
from modelcar_kserve.served_model import ServedModel

Options = pulumi.ResourceOptions | None


class ModelcarImage(Provided):
    """A model's weights as an OCI image, built from a lock, pushed, and known by its digest."""

    digest: pulumi.Output[str]
    """Digest of the image's manifest; in a preview the one that `up` will push."""
    storage_uri: pulumi.Output[str]
    """What KServe serves: oci://REGISTRY/NAME@sha256:…"""
    reference: pulumi.Output[str]
    """REGISTRY/NAME:TAG, a tag for people to find the image by."""
    lock_digest: pulumi.Output[str]
    """Digest of the lock."""
    size_bytes: pulumi.Output[int]
    """Bytes of the model's files."""

    def __init__(self, name: str, args: types.ModelcarImageArgs, opts: Options = None) -> None:
        """Declare the image."""
        super().__init__(name, opts)
        self.make(components.ModelcarImage, components.ModelcarImageArgs, name, args, opts)


class ModelService(Provided):
    """An InferenceService that serves one image, pinned by digest."""

    name: pulumi.Output[str]
    """Name of the InferenceService."""
    namespace: pulumi.Output[str]
    """Namespace of the InferenceService."""
    storage_uri: pulumi.Output[str]
    """What is served; known once it is."""
    endpoint: pulumi.Output[str]
    """Address inside of the cluster."""
    served_model_name: pulumi.Output[str]
    """Name that clients ask the server for."""

    def __init__(self, name: str, args: types.ModelServiceArgs, opts: Options = None) -> None:
        """Declare the service."""
        super().__init__(name, opts)
        self.make_in_cluster(components.ModelService, components.ModelServiceArgs, name, args, opts)


class SharedRuntime(Provided):
    """A ServingRuntime that several models use; each names it in sharedRuntime, and depends on it."""

    name: pulumi.Output[str]
    """Name of the ServingRuntime."""

    def __init__(self, name: str, args: types.SharedRuntimeArgs, opts: Options = None) -> None:
        """Declare the ServingRuntime."""
        super().__init__(name, opts)
        self.make_in_cluster(components.SharedRuntime, components.SharedRuntimeArgs, name, args, opts)


class EgressPolicy(Provided):
    """A NetworkPolicy for what a model's pods may connect to; by default nothing but names."""

    name: pulumi.Output[str]
    """Name of the policy."""

    def __init__(self, name: str, args: types.EgressPolicyArgs, opts: Options = None) -> None:
        """Declare the policy."""
        super().__init__(name, opts)
        self.make_in_cluster(components.EgressPolicy, components.EgressPolicyArgs, name, args, opts)


class IngressPolicy(Provided):
    """A NetworkPolicy for who may connect to a model's pods."""

    name: pulumi.Output[str]
    """Name of the policy."""

    def __init__(self, name: str, args: types.IngressPolicyArgs, opts: Options = None) -> None:
        """Declare the policy."""
        super().__init__(name, opts)
        self.make_in_cluster(components.IngressPolicy, components.IngressPolicyArgs, name, args, opts)


class PullAccess(Provided):
    """A ServiceAccount with the right to pull from a registry, for pods."""

    service_account: pulumi.Output[str]
    """Name of the ServiceAccount."""

    def __init__(self, name: str, args: types.PullAccessArgs, opts: Options = None) -> None:
        """Declare the ServiceAccount, and a Secret where a user and a password are given."""
        super().__init__(name, opts)
        self.make_in_cluster(components.PullAccess, components.PullAccessArgs, name, args, opts)


class PrePull(Provided):
    """A DaemonSet that pulls an image to the nodes before a pod asks for it."""

    storage_uri: pulumi.Output[str]
    """What is pulled; known once every node has it."""

    def __init__(self, name: str, args: types.PrePullArgs, opts: Options = None) -> None:
        """Declare the DaemonSet."""
        super().__init__(name, opts)
        self.make_in_cluster(components.PrePull, components.PrePullArgs, name, args, opts)


class Autoscaler(Provided):
    """A ScaledObject of KEDA, which keeps the number of a model's pods."""

    name: pulumi.Output[str]
    """Name of the ScaledObject."""

    def __init__(self, name: str, args: types.AutoscalerArgs, opts: Options = None) -> None:
        """Declare the ScaledObject."""
        super().__init__(name, opts)
        self.make_in_cluster(components.Autoscaler, components.AutoscalerArgs, name, args, opts)


class KServePlatform(Provided):
    """cert-manager and KServe, by their own charts, with modelcars switched on."""

    version: pulumi.Output[str]
    """KServe's version, known once its webhooks answer, where the program may ask the cluster."""

    def __init__(self, name: str, args: types.KServePlatformArgs, opts: Options = None) -> None:
        """Declare the charts."""
        super().__init__(name, opts)
        self.make_in_cluster(components.KServePlatform, components.KServePlatformArgs, name, args, opts)


COMPONENTS: list[type[pulumi.ComponentResource]] = [
    *(ModelcarImage, ModelService, SharedRuntime, EgressPolicy, IngressPolicy, PullAccess),
    *(PrePull, Autoscaler, KServePlatform, ServedModel),
]


def host() -> None:
    """Serve the provider, as Pulumi starts it."""
    arguments.spelled = as_property  # of what a run tells later, too
    offered = [*COMPONENTS]
    if find_spec("pulumi_gcp"):
        from modelcar_kserve import provider_google  # pulumi-gcp is an extra

        offered += provider_google.COMPONENTS
    serve(offered, NAME, semver())
