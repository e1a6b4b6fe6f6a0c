"""One model for other languages, from its lock to a served endpoint."""

# Without `from __future__ import annotations`: Pulumi reads the types themselves.
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi

import modelcar_kserve as components
from modelcar_kserve import provider_types as types
from modelcar_kserve.components.image.adapter_images import once_verified_too
from modelcar_kserve.components.kserve.model_service import once_served
from modelcar_kserve.modelcar.errors import Problem
from modelcar_kserve.provider_arguments import InCluster, Provided, arguments, in_cluster, told

#: What says how an image is built and pushed, and whose signature it needs.
_OF_A_BUILD = ("image", "registry", "project")


class ServedModel(Provided):
    """A model, from its lock or image to a served endpoint: image, network policies, InferenceService."""

    model_digest: pulumi.Output[str]
    """Digest of the image's manifest; in a preview the one that `up` will push."""
    storage_uri: pulumi.Output[str]
    """What is served: oci://REGISTRY/NAME@sha256:…"""
    endpoint: pulumi.Output[str]
    """Address inside of the cluster."""
    served_model_name: pulumi.Output[str]
    """Name that clients ask the server for."""

    def __init__(
        self, name: str, args: types.ServedModelArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Declare all of it.

        Raises:
            pulumi.RunError: an argument or the lock is wrong; with key, value, what is allowed and the fix.
        """
        super().__init__(name, opts)
        with told(name, args):
            place = in_cluster(self, name, args, opts)
            uri, image = self._image(name, args, opts)
            service = self._service(name, args, uri, place, image)
        digest = pulumi.Output.from_input(uri).apply(lambda found: found.partition("@")[2])
        self.tell(service, model_digest=digest)

    def _image(
        self, name: str, args: Mapping[str, Any], opts: pulumi.ResourceOptions | None
    ) -> tuple[pulumi.Input[str], components.ModelcarImageArgs | None]:
        """Return the image's URI, once it is there, and what it is built by: of a lock it is built."""
        said = {key: args[key] for key in ("lock", "storage_uri") if args.get(key) is not None}
        if len(said) != 1:
            value = "both are set" if said else "neither is set"
            problem = Problem("lock, storageUri", value, "one of them", "set one of them")
            raise components.InputError([problem])
        if "storage_uri" in said:
            if unused := [key for key in _OF_A_BUILD if args.get(key) is not None]:
                raise components.InputError(map(_unused, unused))
            return said["storage_uri"], None
        if args.get("registry") is None:
            allowed = "HOST[:PORT]/PATH that the image is pushed to"
            raise components.InputError([Problem("registry", "not set", allowed, "set registry")])
        own = {key: args[key] for key in ("lock", "registry", "project") if key in args}
        made = arguments(components.ModelcarImageArgs, {**args.get("image", {}), **own})
        return components.ModelcarImage(name, made, self.inner(opts)).storage_uri, made

    def _service(
        self,
        name: str,
        args: Mapping[str, Any],
        uri: pulumi.Input[str],
        place: InCluster,
        image: components.ModelcarImageArgs | None,
    ) -> components.ModelService:
        """Declare the service after the policies, and after signatures: no pod ever runs without them."""
        said = {key: value for key, value in args.items() if key != "lock"}
        if args.get("lock") is not None:
            said["lock"] = str(Path(args.get("project") or ".") / args["lock"])
        made = arguments(components.ModelServiceArgs, said, storage_uri=uri, access=place.access)
        service = args.get("name") or name
        made = dataclasses.replace(made, storage_uri=_once_adapters_count(made, image, service))
        of_it = {"service": service, "namespace": args["namespace"]}
        before: list[pulumi.Resource] = []
        egress = {**of_it, "settings": args.get("egress", {})}
        policy = arguments(components.EgressPolicyArgs, egress, access=place.access)
        if policy.settings.restrict:
            before.append(components.EgressPolicy(f"{name}-egress", policy, place.options))
        if args.get("ingress") is not None:
            closed = arguments(
                components.IngressPolicyArgs, {**of_it, "settings": args["ingress"]}, access=place.access
            )
            before.append(components.IngressPolicy(f"{name}-ingress", closed, place.options))
        later = pulumi.ResourceOptions(depends_on=before)
        served = components.ModelService(name, made, pulumi.ResourceOptions.merge(place.options, later))
        if made.autoscaling and not made.replicas.idle:
            scaling = components.AutoscalerArgs(
                service=service,
                namespace=args["namespace"],
                scaling=made.autoscaling,
                min_replicas=made.replicas.min,
                max_replicas=made.replicas.max,
                start_timeout_seconds=made.start_timeout_seconds,
                access=place.access,
            )
            after = pulumi.ResourceOptions(depends_on=[once_served(served)])
            options = pulumi.ResourceOptions.merge(place.options, after)
            components.Autoscaler(f"{name}-autoscaler", scaling, options)
        return served


def _unused(key: str) -> Problem:
    found = "set beside storageUri: of an image that is there nothing is built, and no signature verified"
    return Problem(
        key,
        found,
        f"storageUri alone, or lock and {key}",
        f"set lock in place of storageUri, or remove {key}",
    )


def _once_adapters_count(
    made: components.ModelServiceArgs, image: components.ModelcarImageArgs | None, model: str
) -> pulumi.Input[str]:
    """Return the image's URI once its adapters' images have the signature that the image has to have."""
    images = made.server.adapter_images if isinstance(made.server, components.VllmServer) else []
    if image is None or image.signature is None or not images:
        return made.storage_uri
    signature, project, insecure = image.signature, image.project, image.insecure

    def verified(registry: str) -> pulumi.Output[str]:
        host = registry.partition("/")[0]
        return once_verified_too(
            images,
            pulumi.Output.from_input(made.storage_uri),
            signature,
            project,
            model=model,
            is_insecure=lambda place: insecure and place.host == host,
        )

    return pulumi.Output.from_input(image.registry).apply(verified)
