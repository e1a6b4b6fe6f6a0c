"""The modelcar: a model's weights as an OCI image, built, pushed, and known by its digest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pulumi
import pulumi_docker_build as docker_build

from components import oci
from components.options import child
from modelcar.layout import Layout, write_layout
from modelcar.weights import read_weights

#: Folder of the Dockerfile; its .dockerignore keeps everything else out: the weights have their own way in.
BUILD_CONTEXT = Path("modelcar")
#: Folder of the layouts below the project; each is as large as its model's weights.
LAYOUTS = Path(".cache/layouts")


@dataclass(frozen=True)
class ModelcarImageArgs:
    """What one image is made of.

    weights: folder with the model's files.
    registry: HOST[:PORT]/PATH to push to.
    name: repository below it.
    base_image: image by digest (or `oci-layout://DIR@sha256:…`) that gives sh, ln, sleep and ls.
    builder: name of the buildx builder; None for the default one.
    insecure: push over plain HTTP, for a registry on this machine.
    project: the program's folder, to which `weights` is relative.
    layouts: folder for the weights' OCI layouts (as large as the weights).
    model_bytes: size of the weights; where it is given, a preview does without the weights themselves.
    """

    weights: Path
    registry: str
    name: str
    base_image: str
    builder: str | None = None
    insecure: bool = False
    project: Path = Path()
    layouts: Path = LAYOUTS
    model_bytes: int | None = None


class ModelcarImage(pulumi.ComponentResource):
    """Build and push a modelcar through the docker-build provider.

    The weights enter as an OCI layout in a named context: the provider does not hash them on every preview,
    and BuildKit pushes their layers as they are (docs/decisions/0002-weights-as-oci-layout.md). The layout's
    digest is an input of the image, so a preview shows that the weights changed.

    Outputs:
        digest: `sha256:…` of the pushed manifest. Unknown in a preview that will build the image.
        storage_uri: `oci://REGISTRY/NAME@sha256:…`, for KServe.
        reference: `REGISTRY/NAME:TAG`, a tag for people to find the image by; nothing is served by it.
        weights_digest: digest of the weights' layout, known without a build.
        size_bytes: bytes of the weights' layers.

    Raises:
        InputError: the weights are unfit, or the disk is too full for their layout.
    """

    digest: pulumi.Output[str]
    storage_uri: pulumi.Output[str]
    reference: pulumi.Output[str]
    weights_digest: pulumi.Output[str]
    size_bytes: pulumi.Output[int]

    def __init__(
        self, name: str, args: ModelcarImageArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Stage the weights and declare the image."""
        layout = _stage(args)
        super().__init__("modelcar:kserve:ModelcarImage", name, None, opts)
        digest = pulumi.Output.from_input(layout.manifest_digest) if layout else unknown()
        # Relative paths: another checkout's preview must not show a change where there is none.
        folder = args.layouts / args.name
        is_layout = oci.LAYOUT.fullmatch(args.base_image)
        base = args.base_image if is_layout else f"docker-image://{args.base_image}"
        export = _export_options(args.insecure)
        dockerfile = args.project / BUILD_CONTEXT / "Dockerfile"
        reference = digest.apply(
            lambda found: f"{args.registry}/{args.name}:{image_tag(base, found, dockerfile, export)}"
        )
        image = docker_build.Image(
            name,
            context=docker_build.BuildContextArgs(
                location=str(BUILD_CONTEXT),
                named={
                    "base": docker_build.ContextArgs(location=base),
                    "weights": docker_build.ContextArgs(
                        location=pulumi.Output.concat("oci-layout://", str(folder), "@", digest)
                    ),
                },
            ),
            build_args={"SOURCE_DATE_EPOCH": "0"},
            builder=docker_build.BuilderConfigArgs(name=args.builder) if args.builder else None,
            exports=[docker_build.ExportArgs(raw=pulumi.Output.concat(export, ",name=", reference))],
            push=False,  # the export above pushes
            build_on_preview=False,
            opts=child(self, opts),
        )
        self.digest = known_digest(image.digest)
        self.storage_uri = self.digest.apply(lambda found: oci.storage_uri(args.registry, args.name, found))
        self.reference = reference
        self.weights_digest = digest
        self.size_bytes = pulumi.Output.from_input(layout.total_size if layout else args.model_bytes or 0)
        self.register_outputs(
            {
                "digest": self.digest,
                "storageUri": self.storage_uri,
                "reference": self.reference,
                "weightsDigest": self.weights_digest,
                "sizeBytes": self.size_bytes,
            }
        )


def _stage(args: ModelcarImageArgs) -> Layout | None:
    """Write the weights' layout; None in a preview on a machine that does not have them."""
    folder = args.project / args.weights
    if args.model_bytes and pulumi.runtime.is_dry_run() and not folder.exists():
        pulumi.log.warn(
            f"{args.weights} is not on this machine: the preview cannot tell whether the image changes. "
            "`pulumi up` needs the weights."
        )
        return None
    return write_layout(read_weights(folder), args.project / args.layouts / args.name)


def _export_options(insecure: bool) -> str:
    """BuildKit's image exporter: push, do not compress what does not compress, normalise every time."""
    options = ["type=image", "push=true", "compression=uncompressed", "oci-mediatypes=true"]
    options += ["rewrite-timestamp=true"]
    options += ["registry.insecure=true"] if insecure else []
    return ",".join(options)


def image_tag(base: str, weights_digest: str, dockerfile: Path, export: str) -> str:
    """Return a tag that names what the image is made of, so that no tag ever moves to another image."""
    base_digest = base.rsplit("@", 1)[-1]
    parts = [
        base_digest,
        weights_digest,
        dockerfile.read_text(),
        export.replace(",registry.insecure=true", ""),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def known_digest(digest: pulumi.Output[str]) -> pulumi.Output[str]:
    """Return the digest, unknown where the provider does not know it yet.

    In a preview of an update the provider (0.0.22) shows the digest as the *known* empty string; passed on,
    it would end up in a URI.

    Raises (inside of the output):
        ValueError: the provider gave no digest in a real run.
    """

    def check(found: str | None) -> pulumi.Output[str]:
        if found and oci.is_digest(found):
            return pulumi.Output.from_input(found)
        if pulumi.runtime.is_dry_run():
            return unknown()
        raise ValueError(
            f"the docker-build provider returned {found!r} in place of a digest; nothing was deployed"
        )

    return digest.apply(check)


def unknown() -> pulumi.Output[str]:
    """Return an output whose value is not known yet."""
    return pulumi.Output.from_input(pulumi.output.UNKNOWN)  # type: ignore[arg-type]
