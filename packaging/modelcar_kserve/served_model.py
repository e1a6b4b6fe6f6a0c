"""One model for other languages, from its lock to a served endpoint."""

# Without `from __future__ import annotations`: Pulumi reads the types themselves.
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi

import modelcar_kserve as components
from modelcar_kserve import provider_types as types
from modelcar_kserve.modelcar.errors import Problem
from modelcar_kserve.provider_arguments import InCluster, Provided, arguments, in_cluster, told


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
        with told(name):
            place = in_cluster(self, name, args, opts)
            uri = self._image(name, args, opts)
            service = self._service(name, args, uri, place)
        digest = pulumi.Output.from_input(uri).apply(lambda found: found.partition("@")[2])
        self.tell(service, model_digest=digest)

    def _image(
        self, name: str, args: Mapping[str, Any], opts: pulumi.ResourceOptions | None
    ) -> pulumi.Input[str]:
        """Return the image's URI, once it is there; of a lock it is built."""
        said = {key: args[key] for key in ("lock", "storage_uri") if args.get(key) is not None}
        if len(said) != 1:
            value = "both are set" if said else "neither is set"
            problem = Problem("lock, storageUri", value, "one of them", "set one of them")
            raise components.InputError([problem])
        if "storage_uri" in said:
            return said["storage_uri"]  # type: ignore[no-any-return]
        if args.get("registry") is None:
            allowed = "HOST[:PORT]/PATH that the image is pushed to"
            raise components.InputError([Problem("registry", "not set", allowed, "set registry")])
        own = {key: args[key] for key in ("lock", "registry", "project") if key in args}
        made = arguments(components.ModelcarImageArgs, {**args.get("image", {}), **own})
        return components.ModelcarImage(name, made, self.inner(opts)).storage_uri

    def _service(
        self, name: str, args: Mapping[str, Any], uri: pulumi.Input[str], place: InCluster
    ) -> components.ModelService:
        """Declare the service after the policies: no pod ever runs without them."""
        said = {key: value for key, value in args.items() if key != "lock"}
        if args.get("lock") is not None:
            said["lock"] = str(Path(args.get("project") or ".") / args["lock"])
        made = arguments(components.ModelServiceArgs, said, storage_uri=uri, access=place.access)
        service = args.get("name") or name
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
        if made.autoscaling:
            scaling = components.AutoscalerArgs(
                service=service,
                namespace=args["namespace"],
                scaling=made.autoscaling,
                min_replicas=made.replicas.min,
                max_replicas=made.replicas.max,
                start_timeout_seconds=made.start_timeout_seconds,
                access=place.access,
            )
            after = pulumi.ResourceOptions(depends_on=[served])
            options = pulumi.ResourceOptions.merge(place.options, after)
            components.Autoscaler(f"{name}-autoscaler", scaling, options)
        return served
