"""One model of a stack: its image, and what serves it, with a failure boundary of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
from pulumi.runtime.settings import SETTINGS, _get_rpc_manager

from components import delivery, former_image
from components.former_image import Former
from components.idle import idle_cost
from components.modelcar_image import ModelcarImage, ModelcarImageArgs
from components.options import formerly
from components.settings import Settings
from modelcar.base import Base
from modelcar.lock import Lock


@dataclass(frozen=True)
class ModelArgs:
    """What one model is made of.

    settings: its own; lock: what is delivered, None in a preview before there is one.
    base: the programs beside the weights. project: the program's folder.
    former: the image that it rolls back to.
    builds: lets so many images be built at the same time.
    registry: what has to be there before the image is pushed.
    place: where it is served; None where Git delivers it.
    """

    settings: Settings
    lock: Lock | None
    base: Base
    project: Path
    former: Former | None = None
    builds: asyncio.Semaphore | None = None
    registry: pulumi.Resource | None = None
    place: delivery.Place | None = None


class Model(pulumi.ComponentResource):
    """A model: image, right to pull, egress, service; nothing in it depends on another model.

    Outputs:
        outputs: what other teams are told of it (docs/outputs.md), by name.
        done: there once all of that is true.
    """

    outputs: dict[str, Any]
    done: pulumi.Output[dict[str, Any]]

    def __init__(self, name: str, args: ModelArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare all of it; its former names are those of the same resources."""
        settings = args.settings
        aliases: list[pulumi.Input[str | pulumi.Alias]] = [
            pulumi.Alias(name=old) for old in settings.former_names
        ]
        renamed = pulumi.ResourceOptions(aliases=aliases)
        super().__init__("modelcar:kserve:Model", name, None, pulumi.ResourceOptions.merge(opts, renamed))
        image = ModelcarImage(
            name,
            ModelcarImageArgs(
                args.lock,
                args.base,
                registry=settings.registry,
                name=settings.repository,
                builder=settings.builder,
                insecure=settings.registry_insecure,
                project=args.project,
                hub_endpoint=settings.hub_endpoint,
                fetch_on=settings.fetch_on,
                sbom=settings.sbom,
                signature=settings.signature,
                builds=args.builds,
            ),
            pulumi.ResourceOptions.merge(
                formerly(self, settings.repository),
                pulumi.ResourceOptions(depends_on=[args.registry] if args.registry else []),
            ),
        )
        served = former_image.served(settings, args.project, image, args.former)
        if args.place:
            uri = delivery.to_cluster(self, name, settings, served.storage_uri, args.place)
        else:
            uri = served.storage_uri
        image_outputs: dict[str, Any] = {
            "modelDigest": served.digest,
            "storageUri": uri,
            "imageReference": served.reference,
            "lockDigest": served.lock_digest,
            "modelBytes": served.size_bytes,
        }
        self.outputs = {**image_outputs, **facts(settings, args.lock)}
        self.done = pulumi.Output.all(**image_outputs)
        self.register_outputs(self.outputs)


def facts(settings: Settings, lock: Lock | None) -> dict[str, Any]:
    """Return what a model's settings alone tell other teams."""
    return {
        "serviceName": settings.service_name,
        "namespace": settings.namespace,
        "servedModelName": settings.model_name,
        "endpoint": endpoint(settings),
        "deploymentMode": settings.deployment_mode,
        "idleCost": idle_cost(settings, lock.total_size if lock else 0),
        **({"nodePool": settings.google.nodes.name} if settings.google else {}),
    }


def endpoint(settings: Settings) -> str:
    """Return the address of the model inside of the cluster.

    As KServe (0.19) says it in `status.address.url`: in Standard mode the Service of the predictor, on
    port 80; in Knative mode the route of the InferenceService.
    """
    part = "-predictor" if settings.deployment_mode == "Standard" else ""
    return f"http://{settings.service_name}{part}.{settings.namespace}.svc.cluster.local"


async def outcomes(models: Mapping[str, Model]) -> tuple[dict[str, Any], dict[str, Exception]]:
    """Wait for every model, whatever becomes of the others.

    Returns:
        The outputs of those that are there, and the errors of those that are not, by key. An output that is
        not known yet, in a preview, is there too.
    """
    found: dict[str, Any] = {}
    failed: dict[str, Exception] = {}
    for key, model in models.items():
        try:
            await model.done.future()
            found[key] = model.outputs
        except Exception as error:
            failed[key] = error
    if failed:
        await _told_once()
    return found, failed


async def _told_once() -> None:
    """Forget the registrations that failed because of what is told already.

    The SDK would raise the first of them, with its traceback, in place of what the program says of all. It
    has no public way to this (3.259); tests/engine/test_models.py sees it if another release differs.
    """
    manager = _get_rpc_manager()
    while pending := [rpc for rpc in manager.rpcs if isinstance(rpc, asyncio.Future) and not rpc.done()]:
        await asyncio.wait(pending)
    manager.clear()
    with SETTINGS.lock:
        SETTINGS.outputs = {output for output in SETTINGS.outputs if not output.done()}
