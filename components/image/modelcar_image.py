"""The modelcar: a model's weights as an OCI image, built, pushed, and known by its digest."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pulumi
import pulumi_docker_build as docker_build
from pydantic import ValidationError

from components.config.arguments import as_arguments
from components.config.checks import signature
from components.config.checks.image import fetching, foreign_mirrors
from components.config.explain import explained
from components.config.image import ImageSettings
from components.config.signature import SignatureSettings
from components.engine import left_out
from components.engine.hooks import error_hook, resource_hook
from components.engine.inputs import Arguments, checked
from components.engine.one_run import OfOneRun
from components.engine.options import child, unknown
from components.engine.threads import in_thread
from components.image.delivery_plan import Delivery
from modelcar import oci_names
from modelcar.base import Base, read_base
from modelcar.build_options import export_options, image_tag
from modelcar.errors import InputError, Problem
from modelcar.image import modelcar_image
from modelcar.lock import LAYOUTS, Lock
from modelcar.lock_reader import read_lock
from modelcar.manifest import Image
from modelcar.oci_layout import context_of

#: As in `docker build -`, with nothing to read: the build gets no folder, and the provider hashes none.
#: It would hash each file's mode too, so that a clone under another umask showed the image as changed.
NO_CONTEXT = "-"
#: What modelcar/Dockerfile says to builders that are called by hand. All of the image is in the layout.
DOCKERFILE = "FROM weights\n"
#: Arguments that a stack's settings of the same names are checked as, each by itself.
_CHECKED = ("architecture", "builder", "fetch_on", "hub_endpoint", "mirrors")
#: Digests of the images of a run, in their order, by project and name of the lock.
_images: OfOneRun[dict[tuple[Path, str], list[str]]] = OfOneRun(dict)


@dataclass(frozen=True, kw_only=True)
class ModelcarImageArgs(Arguments):
    """What one image is made of.

    lock: Path of the model's model.lock, below the project, or the lock itself. A preview takes None too.
    registry: HOST[:PORT]/PATH to push to. The digest in a preview does not depend on it.
    name: Repository below the registry; by default the name of the lock's folder.
    architecture: Processor of the nodes.
    base: The programs beside the weights; by default those of modelcar/base.lock.
    builder: Name of the buildx builder; by default Docker's default one.
    insecure: Push over plain HTTP, for a registry on this machine.
    project: Folder of the program; by default the current one.
    hub_endpoint: Address of a mirror of the model hub; by default the hub itself.
    fetch_on: What downloads the weights: this machine, or the builder, which then needs a name.
    mirrors: HOST[:PORT]/PATH of repositories that layers come from before the hub.
    mirrors_insecure: Read mirrors on other hosts than the registry's over plain HTTP.
    sbom: Attach the model's bill of materials to the image.
    signature: Who signs the image, and whose signature it needs before anything refers to it.
    builds: Limits how many images are brought and built at the same time.
    """

    lock: Lock | str | Path | None
    registry: pulumi.Input[str]
    name: str | None = None
    architecture: Literal["amd64", "arm64"] = "amd64"
    base: Base | None = None
    builder: str | None = None
    insecure: bool = False
    project: Path = Path()
    hub_endpoint: str | None = None
    fetch_on: Literal["machine", "builder"] = "machine"
    mirrors: tuple[str, ...] = ()
    mirrors_insecure: bool = False
    sbom: bool = True
    signature: SignatureSettings | None = None
    builds: asyncio.Semaphore | None = None

    def resolved(self) -> Resolved:
        """Return what of it is plain, read and checked.

        Raises:
            modelcar.errors.InputError: the lock is missing or wrong, the repository has no name, or arguments
                are wrong, or do not go together.
        """
        problems = list(as_arguments(self._problems(), {}))
        path = None if self.lock is None or isinstance(self.lock, Lock) else self.project / self.lock
        try:
            lock = read_lock(path) if path else self.lock if isinstance(self.lock, Lock) else None
        except InputError as error:
            raise InputError([*problems, *error.problems]) from None
        name = self.name or (path.parent.name if path else lock.name if lock else "")
        if not oci_names.NAME.fullmatch(name):
            allowed = "lower case, digits, and single . _ - between"
            problems.append(Problem("name", repr(name), allowed, "give the repository a name"))
        if problems:
            raise InputError(problems)
        return Resolved(lock, self.base or read_base(self.architecture), name)

    def check_registry(self, registry: str) -> None:
        """Refuse a registry that images cannot be pushed to, or mirrors that do not go with it.

        Raises:
            modelcar.errors.InputError: that.
        """
        if fault := oci_names.fault_of_registry(registry):
            why, allowed, fix = fault
            raise InputError([Problem("registry", f"{registry!r}: {why}", allowed, fix)])
        if found := foreign_mirrors(registry, self.mirrors, self.fetch_on):
            raise InputError(list(as_arguments([found], {})))

    def _problems(self) -> Iterator[Problem]:
        """Yield what is wrong with plain arguments, with the settings of a stack that say the same."""
        values = {name: getattr(self, name) for name in _CHECKED}
        try:
            # Model and registry are looked at elsewhere.
            ImageSettings.model_validate({**values, "model": "m", "registry": "r.invalid/m"}, by_name=True)
        except ValidationError as error:
            yield from explained(error, ImageSettings)
        if found := fetching(self.fetch_on, self.builder):
            yield found
        if self.signature:
            yield from signature.problems(self.signature)


@dataclass(frozen=True)
class Resolved:
    """What an image is made of, and the repository's name below the registry."""

    lock: Lock | None
    base: Base
    name: str


class ModelcarImage(pulumi.ComponentResource):
    """Build and push a modelcar through the docker-build provider.

    The image's digest follows from the lock, so a preview shows the one that `up` will push, without the
    weights, and a run that pushes another one fails. The weights enter as an OCI layout in a named context
    (docs/decisions/0002): BuildKit pushes its layers as they are. The build has no other files, so
    nothing of a checkout is an input. The weights are fetched only when the image is to be made or changed.

    Outputs:
        digest: `sha256:…` of the pushed manifest. Unknown in a preview without a lock.
        storage_uri: `oci://REGISTRY/NAME@sha256:…`, for KServe.
        reference: `REGISTRY/NAME:TAG`, a tag for people to find the image by; nothing is served by it.
        lock_digest: digest of the lock.
        size_bytes: bytes of the model's files.

    Raises (inside of the output):
        ValueError: the registry got another digest than the lock says.
        pulumi.RunError: the image has no signature that counts, and cannot be signed here.
    """

    digest: pulumi.Output[str]
    storage_uri: pulumi.Output[str]
    reference: pulumi.Output[str]
    lock_digest: pulumi.Output[str]
    size_bytes: pulumi.Output[int]

    def __init__(
        self, name: str, args: ModelcarImageArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Declare the image."""
        super().__init__("modelcar:kserve:ModelcarImage", name, None, opts)
        made = args.resolved()
        lock, repository = made.lock, made.name
        registry = pulumi.Output.from_input(checked(args.registry, args.check_registry))
        planned = modelcar_image(lock, made.base) if lock else None
        predicted = pulumi.Output.from_input(planned.digest) if planned else unknown()
        self.reference = pulumi.Output.all(registry, predicted).apply(
            lambda found: f"{found[0]}/{repository}:{image_tag(str(found[1]))}"
        )
        export = export_options(planned, insecure=args.insecure)
        layout = _layout(args.project, lock.name if lock else repository, planned)
        hooks = _fetching(name, args, made, planned, layout, registry)
        image = docker_build.Image(
            name,
            context=docker_build.BuildContextArgs(
                location=NO_CONTEXT,
                named={
                    "weights": docker_build.ContextArgs(
                        location=predicted.apply(lambda digest: context_of(layout, digest))
                    )
                },
            ),
            dockerfile=docker_build.DockerfileArgs(inline=DOCKERFILE),
            build_args={"SOURCE_DATE_EPOCH": "0"},
            builder=docker_build.BuilderConfigArgs(name=args.builder) if args.builder else None,
            exports=[docker_build.ExportArgs(raw=pulumi.Output.concat(export, ",name=", self.reference))],
            push=False,  # the export above pushes
            build_on_preview=False,
            opts=pulumi.ResourceOptions.merge(child(self, opts), pulumi.ResourceOptions(hooks=hooks)),
        )
        self.digest = _signed(_pushed(image, planned, name, layout), args, made, registry)
        self.storage_uri = pulumi.Output.all(registry, self.digest).apply(
            lambda found: oci_names.storage_uri(str(found[0]), repository, str(found[1]))
        )
        self.lock_digest = pulumi.Output.from_input(lock.digest) if lock else unknown()
        self.size_bytes = pulumi.Output.from_input(lock.total_size if lock else 0)
        self.register_outputs(
            {
                "digest": self.digest,
                "storageUri": self.storage_uri,
                "reference": self.reference,
                "lockDigest": self.lock_digest,
                "sizeBytes": self.size_bytes,
            }
        )


def _layout(project: Path, name: str, planned: Image | None) -> Path:
    """Return the layout that an image is built of.

    A layout holds one image: the same model for another processor, or another one of the same name, gets one
    of its own. The first image of a name has the path that it had before there could be others.

    Args:
        project: the program's folder. name: of the lock.
        planned: the image; None in a preview without a lock.

    Returns:
        A relative path: another checkout's preview must not show a change where there is none.
    """
    images = _images.get().setdefault((project.absolute(), name), [])
    digest = planned.digest if planned else ""
    if digest not in images:
        images.append(digest)
    number = images.index(digest)
    return (LAYOUTS / str(number + 1) if number else LAYOUTS) / f"{name}.oci"


def _fetching(
    name: str,
    args: ModelcarImageArgs,
    made: Resolved,
    planned: Image | None,
    layout: Path,
    registry: pulumi.Output[str],
) -> pulumi.ResourceHookBinding | None:
    """Return the hooks that bring the weights when the image is made or changed, and at no other time.

    Layers that the registry has are not brought. The others are sent to it at once: BuildKit takes none over.
    """
    lock = made.lock
    if lock is None or planned is None or pulumi.runtime.is_dry_run():
        return None
    # Hooks run once the image's own inputs are there, and so the registry.
    known: list[str] = []
    registry.apply(known.append)

    def delivery() -> Delivery:
        return Delivery(
            planned,
            lock,
            made.base,
            layout,
            args.project,
            known[0],
            made.name,
            insecure=args.insecure,
            hub_endpoint=args.hub_endpoint,
            fetching_builder=args.builder if args.fetch_on == "builder" else None,
            mirrors=args.mirrors,
            mirrors_insecure=args.mirrors_insecure,
            builder=args.builder,
        )

    builds = args.builds
    # Whether this image holds one of the places; its build begins and ends in different hooks.
    taken: list[bool] = []

    def leave() -> None:
        if builds and taken:
            taken.clear()
            builds.release()

    # Imported when they run: the clients of hub and registry take a second to load, no preview needs them.
    async def before(_: pulumi.ResourceHookArgs) -> None:
        from components.image.image_delivery import bring  # with clients of registries: only a build needs it

        if builds:
            await builds.acquire()
            taken.append(True)
        try:
            await in_thread(bring, delivery())
        except BaseException:
            leave()
            raise

    async def after(_: pulumi.ResourceHookArgs) -> None:
        leave()
        if args.sbom and not args.signature:  # with a signature it comes together with that
            from components.image.image_delivery import (
                attach,  # with clients of registries: only a build needs it
            )

            await in_thread(attach, delivery())

    async def failed(_: pulumi.ErrorHookArgs) -> bool:
        leave()
        return False  # no retry

    fetching = resource_hook(f"fetch-{name}", before)
    # The image is pushed by then: a bill of materials that cannot be attached is a warning, with any engine.
    attaching = resource_hook(f"attach-{name}", after, pulumi.ResourceHookOptions(ignore_errors=True))
    return pulumi.ResourceHookBinding(
        before_create=[fetching],
        before_update=[fetching],
        after_create=[attaching],
        after_update=[attaching],
        on_error=[error_hook(f"failed-{name}", failed)],
    )


def _pushed(image: docker_build.Image, planned: Image | None, name: str, layout: Path) -> pulumi.Output[str]:
    """Return the digest that was pushed, which has to be the planned one; in a preview the planned one.

    Of an image that this run leaves out it is the last run's.

    Args:
        image: the provider's. planned: the image as the lock says it. name: of the component.
        layout: what the image is declared to be built of.
    """
    if pulumi.runtime.is_dry_run():
        # The provider (0.0.22) shows the digest of an update as the *known* empty string, so it is not asked.
        return image.urn.apply(lambda _: planned.digest) if planned else unknown()

    def check(known: list[Any]) -> str:
        found, context = known
        if planned and found != planned.digest and _built_of(context) != context_of(layout, planned.digest):
            left_out.note(name)
            return str(found)
        if planned is None or found != planned.digest:
            raise ValueError(
                f"the docker-build provider pushed {found!r}, and the lock says "
                f"{planned.digest if planned else None!r}; nothing was deployed. The builder does not pass "
                "the layout on as it is: take one of BuildKit 0.31, and nothing that adds attestations"
            )
        return str(found)

    return pulumi.Output.all(image.digest, image.context).apply(check)


def _built_of(context: Any) -> str:
    """Return what the engine says that an image was built of."""
    named = (context or {}).get("named") or {}
    return str((named.get("weights") or {}).get("location", ""))


def _signed(
    digest: pulumi.Output[str], args: ModelcarImageArgs, made: Resolved, registry: pulumi.Output[str]
) -> pulumi.Output[str]:
    """Return a digest once its image is signed: what comes after it never refers to an unsigned one."""
    signature = args.signature.found_from(args.project) if args.signature else None
    if signature is None or pulumi.runtime.is_dry_run():
        return digest

    async def check(known: list[str]) -> str:
        place, found = known
        from components.image.image_delivery import (
            have_signed,  # with clients of registries: only a build needs it
        )

        reference = f"{place}/{made.name}@{found}"
        await in_thread(
            have_signed,
            reference,
            signature,
            made.lock if args.sbom else None,
            insecure=args.insecure,
            mirrors=args.mirrors,
            mirrors_insecure=args.mirrors_insecure,
        )
        return found

    return pulumi.Output.all(registry, digest).apply(check)
