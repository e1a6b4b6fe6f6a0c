"""The component provider: the same for programs in TypeScript, Go, C#, Java and YAML.

Pulumi reads its schema from the types below, and makes an SDK of it: `pulumi package add …/packaging/plugin`.
"""

# Without `from __future__ import annotations`: Pulumi reads the types themselves.
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import pulumi
from pulumi.provider.experimental import component_provider_host

from modelcar_kserve import InputError, Place, load_model, serve
from modelcar_kserve.components.kserve.cluster_provider import cluster_provider

NAME = "modelcar-kserve"


class ServedModelArgs(TypedDict):
    """What one model is made of, and where it is served."""

    model: NotRequired[str]
    """A locked model (a folder of modelcar/models), or the path of a model.lock. Not with settings.image."""
    registry: NotRequired[str]
    """HOST[:PORT]/PATH that the modelcar is pushed to; needed with model."""
    server_image: str
    """Model server, by digest."""
    service_name: str
    """Name of the InferenceService."""
    namespace: str
    """Namespace of it, which has to be there."""
    kubeconfig: NotRequired[str]
    """Path or text of a kubeconfig; kubectl's own where not set."""
    gpu_count: NotRequired[int]
    """GPUs of one pod; 1 where not set."""
    server_args: NotRequired[list[str]]
    """More arguments of the server."""
    project: NotRequired[str]
    """Folder of the program, with modelcar/models; the current one where not set."""
    settings: NotRequired[dict[str, Any]]
    """Any other setting of a model, by its name in docs/reference/settings.md."""


class ServedModel(pulumi.ComponentResource):
    """A model, from its lock to a served endpoint: image, right to pull, egress, InferenceService."""

    model_digest: pulumi.Output[str]
    """Digest of the modelcar's manifest; in a preview the one that `up` will push."""
    storage_uri: pulumi.Output[str]
    """What KServe serves: oci://REGISTRY/NAME@sha256:…"""
    endpoint: pulumi.Output[str]
    """Address inside of the cluster."""
    served_model_name: pulumi.Output[str]
    """Name that clients ask the server for."""

    def __init__(self, name: str, args: ServedModelArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare it.

        Raises:
            pulumi.RunError: a setting or the lock is wrong; with key, value, what is allowed and the fix.
        """
        super().__init__(f"{NAME}:index:ServedModel", name, None, opts)
        named = ("model", "registry", "namespace", "kubeconfig")
        values: dict[str, Any] = {key: args[key] for key in named if args.get(key) is not None}  # type: ignore[literal-required]
        renamed = {
            "serverImage": args["server_image"],
            "serviceName": args["service_name"],
            "gpuCount": args.get("gpu_count"),
            "serverArgs": args.get("server_args"),
        }
        values |= {key: value for key, value in renamed.items() if value is not None}
        values |= _plain(args.get("settings") or {})
        if "model" not in values and "image" not in values:
            raise pulumi.RunError(f"{name}: neither model nor settings.image says what is served")
        folder = Path(args.get("project") or ".").absolute()
        try:
            settings = load_model(values, folder)
            cluster = cluster_provider(
                f"{name}-cluster",
                settings.kubeconfig,
                settings.kube_context,
                pulumi.ResourceOptions(parent=self),
            )
            place = Place(pulumi.ResourceOptions(provider=cluster))
            own = pulumi.ResourceOptions(parent=self)
            model = serve(name, settings, place, own, project=folder)
        except InputError as error:
            raise pulumi.RunError(f"{name}: the model's settings or lock are not fit:\n{error}") from None
        self.model_digest = pulumi.Output.from_input(model.outputs["modelDigest"])
        self.storage_uri = pulumi.Output.from_input(model.outputs["storageUri"])
        self.endpoint = model.done.apply(lambda _: str(model.outputs["endpoint"]))
        self.served_model_name = model.done.apply(lambda _: str(model.outputs["servedModelName"]))
        self.register_outputs(
            {
                "modelDigest": self.model_digest,
                "storageUri": self.storage_uri,
                "endpoint": self.endpoint,
                "servedModelName": self.served_model_name,
            }
        )


def _plain(value: Any) -> Any:
    """Return numbers as they were written: all of them come as floats."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list) else value


def host() -> None:
    """Serve the provider, as Pulumi starts it."""
    component_provider_host(name=NAME, components=[ServedModel])
