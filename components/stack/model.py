"""One model of a stack: its image, and what serves it, with a failure boundary of its own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi

from components.config.settings import Settings
from components.engine.options import formerly
from components.image import adapter_images, former_image
from components.image.existing_image import Existing, ExistingImage, ExistingImageArgs
from components.image.former_image import Former
from components.image.modelcar_image import ModelcarImage, ModelcarImageArgs
from components.manifests.service import endpoint
from components.stack import delivery
from components.stack.idle import idle_cost
from modelcar.base import Base
from modelcar.lock import Lock


@dataclass(frozen=True)
class ModelArgs:
    """What one model is made of.

    settings: its own; lock: what is delivered, None in a preview before there is one.
    existing: the image that is served as it is, in place of a lock.
    base: the programs beside the weights. project: the program's folder.
    former: the image that it rolls back to.
    builds: lets so many images be built at the same time.
    registry: what has to be there before the image is pushed.
    destination: where it is served; None where Git delivers it.
    """

    settings: Settings
    lock: Lock | None
    base: Base
    project: Path
    former: Former | None = None
    builds: asyncio.Semaphore | None = None
    registry: pulumi.Resource | None = None
    destination: delivery.Destination | None = None
    existing: Existing | None = None


class Model(pulumi.ComponentResource):
    """A model: image, right to pull, egress, service; nothing in it depends on another model.

    Outputs:
        outputs: what other teams are told of it (docs/outputs.md), by name.
        served: the digest-pinned URI, once the model is served by it.
        done: there once all of `outputs` is true, and all that is declared for the model is there.
    """

    outputs: dict[str, Any]
    served: pulumi.Output[str]
    done: pulumi.Output[dict[str, Any]]

    def __init__(self, name: str, args: ModelArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare all of it; its former names are those of the same resources."""
        settings = args.settings
        aliases: list[pulumi.Input[str | pulumi.Alias]] = [
            pulumi.Alias(name=old) for old in settings.former_names
        ]
        renamed = pulumi.ResourceOptions(aliases=aliases)
        super().__init__("modelcar:kserve:Model", name, None, pulumi.ResourceOptions.merge(opts, renamed))
        image = self._image(name, args)
        served = former_image.served(settings, args.project, image, args.former)
        uri = adapter_images.once_verified_too(
            settings.adapter_images,
            served.storage_uri,
            settings.signature,
            args.project,
            model=settings.key,
            is_insecure=settings.is_insecure,
        )
        done: pulumi.Output[Any] = uri
        if args.destination:
            delivered = delivery.to_cluster(self, name, settings, uri, args.destination)
            uri, done = delivered.served, delivered.done
        image_outputs: dict[str, Any] = {
            "modelDigest": served.digest,
            "storageUri": uri,
            "imageReference": served.reference,
            "lockDigest": served.lock_digest,
            "modelBytes": served.size_bytes,
        }
        own = settings_outputs(settings, args.lock, args.existing)
        self.served = uri
        self.outputs = {**image_outputs, **own}
        self.done = pulumi.Output.all(**image_outputs, done=done)
        self.register_outputs(self.outputs)

    def _image(self, name: str, args: ModelArgs) -> ModelcarImage | ExistingImage:
        """Declare the image: one that is built of a lock, or one that is there."""
        settings = args.settings
        if args.existing:
            there = ExistingImageArgs(
                args.existing, settings.insecure_place, settings.signature, args.project
            )
            return ExistingImage(name, there, pulumi.ResourceOptions(parent=self))
        return ModelcarImage(
            name,
            ModelcarImageArgs(
                lock=args.lock,
                base=args.base,
                registry=settings.registry,
                name=settings.repository,
                builder=settings.builder,
                insecure=settings.registry_insecure,
                project=args.project,
                hub_endpoint=settings.hub_endpoint,
                fetch_on=settings.fetch_on,
                mirrors=settings.mirrors,
                mirrors_insecure=settings.mirrors_insecure,
                sbom=settings.sbom,
                signature=settings.signature,
                builds=args.builds,
            ),
            pulumi.ResourceOptions.merge(
                formerly(self, settings.repository),
                pulumi.ResourceOptions(depends_on=[args.registry] if args.registry else []),
            ),
        )


def settings_outputs(
    settings: Settings, lock: Lock | None, existing: Existing | None = None
) -> dict[str, Any]:
    """Return what a model's settings alone tell other teams."""
    size = lock.total_size if lock else existing.size if existing else None
    return {
        "built": existing is None,
        "serviceName": settings.service_name,
        "namespace": settings.namespace,
        "servedModelName": settings.model_name,
        "endpoint": endpoint(settings.service_name, settings.namespace),
        "deploymentMode": settings.deployment_mode,
        "idleCost": idle_cost(settings, size or 0),
        **({"nodePool": settings.google.nodes.name} if settings.google else {}),
    }
