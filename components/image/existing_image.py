"""`modelcar:image`: serve an image that is in a registry already, as it is; nothing is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi

from components.config.checks import vllm
from components.config.checks.fit import unfit
from components.config.checks.image import PATIENCE
from components.config.image_place import ImagePlace
from components.config.known_model import KnownModel
from components.config.kserve import MODELCAR_UID
from components.config.problems import NAMESPACE
from components.config.settings import Settings
from components.config.signature import SignatureSettings
from components.config.stack import Stack
from components.engine.options import unknown
from components.image.verification import once_verified
from modelcar import existing_image, oci_names
from modelcar.errors import InputError, Problem, UnansweredError
from modelcar.layouts import CONFIG
from modelcar.registry import Target

KEY = f"{NAMESPACE}:image"
#: Seconds that an `up` waits for one answer of the registry.
WAIT = 60.0
#: Images that are looked at at a time.
JOBS = 8
#: More than the compressed layers, where nothing says how they are packed: pulled, and unpacked at most.
_UNPACKED = 1.25
_GONE = "check name and digest (docker buildx imagetools inspect); a cleanup policy may have removed it"


@dataclass(frozen=True)
class Existing:
    """What is known of an image that is there.

    place: with its digest. size: bytes of its layers; None where the registry could not be asked.
    disk: bytes of one copy on a node. lock_digest: of its lock; empty where it does not say, None if unknown.
    doubts: what a reviewer should know.
    """

    place: ImagePlace
    size: int | None = None
    disk: float = 0.0
    lock_digest: str | None = None
    doubts: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """`sha256:…`"""
        return str(self.place.digest)


def find(
    settings: Settings, *, preview: bool, told: Mapping[str, Any] | None = None, key: str = KEY
) -> Existing | None:
    """Return what is known of a model's image; None where the model is built.

    Args:
        settings: of the model.
        preview: works without the registry too, and says then what was not looked at.
        told: the model's outputs of the last run, for what the registry cannot be asked.
        key: of the setting, for errors.

    Raises:
        InputError: no pod could be served by it, the server's arguments do not fit the model, or an `up`
            does not get to see it.
    """
    if settings.image is None:
        return None
    return examine(settings, settings.place, preview=preview, told=told, key=key)


def find_all(
    stack: Stack, *, preview: bool, outputs: Mapping[str, Any]
) -> tuple[dict[str, Existing], list[Problem]]:
    """Return what is known of the images of a stack's models, by the model's key, and what is wrong.

    Args:
        outputs: of the last run.
    """
    told = outputs.get("models") or {}
    asked = [(number, settings) for number, settings in enumerate(stack.models) if settings.image]
    if not asked:
        return {}, []

    def one(number: int, settings: Settings) -> Existing | list[Problem]:
        key = f"{NAMESPACE}:models[{number}].image" if stack.listed else KEY
        former = settings.of_last_run(told)
        try:
            return examine(settings, settings.place, preview=preview, told=former, key=key)
        except InputError as error:
            return list(error.problems)

    with ThreadPoolExecutor(JOBS) as pool:
        answers = list(pool.map(one, *zip(*asked, strict=True)))
    found: dict[str, Existing] = {}
    problems: list[Problem] = []
    for (_, settings), answer in zip(asked, answers, strict=True):
        if isinstance(answer, Existing):
            found[settings.key] = answer
        else:
            problems += answer
    return found, problems


def examine(
    settings: Settings,
    place: ImagePlace,
    *,
    preview: bool,
    told: Mapping[str, Any] | None = None,
    key: str = KEY,
) -> Existing:
    """Return what is known of an image.

    Args:
        place: with a digest.

    Raises:
        InputError: as `find`.
    """
    shown = f"{place.repository}@{place.digest}"
    image = seen(settings, place, preview=preview, key=key, fix=_GONE)
    if isinstance(image, str):
        return _unseen(place, image, told)
    if problems := list(_problems(settings, image, shown, key)):
        raise InputError(problems)
    doubts = [*_notes(settings, image), *_pull_doubts(settings, place, _target(settings, place))]
    named = tuple(f"{settings.key}: {shown} {doubt}" for doubt in doubts)
    return Existing(place, image.size, image.disk, image.lock_digest, named)


def seen(
    settings: Settings, place: ImagePlace, *, preview: bool, key: str, fix: str
) -> existing_image.ExistingImage | str:
    """Return an image as its registry has it; why it was not looked at, where that stops nothing.

    Args:
        settings: of the model.
        place: with a digest.
        preview: works without the registry too.
        key: of the setting, for errors.
        fix: for an image that is not there.

    Raises:
        InputError: no pod could mount it, it is not there, or an `up` does not get to see it.
    """
    # A stack that builds all of its images needs no client of registries here.
    import httpx  # only a stack that serves such an image needs it

    from modelcar.existing_image import UnfitError, look  # only a stack that serves such an image needs it
    from modelcar.registry import Registry  # only a stack that serves such an image needs it

    shown, optional = f"{place.repository}@{place.digest}", preview or not settings.check_reachable
    try:
        with Registry(_target(settings, place), timeout=PATIENCE if optional else WAIT) as registry:
            image = look(registry, str(place.digest), settings.architecture)
    except UnfitError as error:
        fault = error.fault
        raise InputError([Problem(key, f"{shown}: {fault.found}", fault.allowed, fault.fix)]) from None
    except (UnansweredError, httpx.HTTPError) as error:
        why = error.problems[0] if isinstance(error, InputError) else None
        found = f"{shown}: {why.value if why else error}"
        if optional:
            return found
        fix = f"{why.fix if why else 'try again later'}; where only the nodes can reach it, "
        fix += f"pulumi config set {NAMESPACE}:checkReachable false"
        raise InputError([Problem(key, found, "an image that this machine may look at", fix)]) from None
    if image is None:
        raise InputError([Problem(key, f"{shown}: the registry does not have it", "an image of it", fix)])
    return image


def _target(settings: Settings, place: ImagePlace) -> Target:
    return Target(place.registry, place.name, settings.is_insecure(place))


def _unseen(place: ImagePlace, found: str, told: Mapping[str, Any] | None) -> Existing:
    doubt = (
        f"{found}: not looked at, so that this assumes an image for the nodes' platform, without ENTRYPOINT, "
        "with the model in /models"
    )
    size = int(told["modelBytes"]) if told and told.get("modelDigest") == place.digest else 0
    if told and size:  # found out when it was served
        return Existing(place, size, size * _UNPACKED, str(told["lockDigest"]), (doubt,))
    return Existing(place, doubts=(f"{doubt}, and does not know whether it fits the nodes' disk",))


def _problems(
    settings: Settings, image: existing_image.ExistingImage, shown: str, key: str
) -> Iterator[Problem]:
    from modelcar.existing_image import faults  # only a stack that serves such an image needs it

    runs, needs = settings.entrypoint_runs_arguments, vllm.needs_config(settings)
    for fault in faults(image, MODELCAR_UID, runs_arguments=runs, needs_config=needs):
        yield Problem(key, f"{shown}: {fault.found}", fault.allowed, fault.fix)
    if image.model_config is not None:
        yield from unfit(_without_adapters(settings), _known(image, shown))
    for number, module in _adapters(settings):
        if not image.files.unread_models and not image.files.find(f"models/{module}/adapter_config.json"):
            yield Problem(
                f"{NAMESPACE}:vllm.loraModules[{number}].path",
                f"{module}: {shown} has no /models/{module}/adapter_config.json",
                "a folder of the model that has adapter_config.json",
                "put the adapter there, and build the image again",
            )


def _known(image: existing_image.ExistingImage, shown: str) -> KnownModel:
    complete = not image.files.unread_models
    files = dict.fromkeys((path.removeprefix("models/") for path in image.files.below("models")), "")
    return KnownModel(files, {CONFIG: dict(image.model_config or {})}, complete, teller=shown)


def _adapters(settings: Settings) -> list[tuple[int, str]]:
    modules = settings.vllm.lora_modules if settings.vllm else ()
    return [(number, module.path) for number, module in enumerate(modules) if module.path]


def _without_adapters(settings: Settings) -> Settings:
    if settings.vllm is None:
        return settings
    return settings.model_copy(update={"vllm": settings.vllm.model_copy(update={"lora_modules": ()})})


def _notes(settings: Settings, image: existing_image.ExistingImage) -> Iterator[str]:
    from modelcar.existing_image import notes  # only a stack that serves such an image needs it

    yield from notes(image)
    if settings.entrypoint_runs_arguments and image.entrypoint:
        yield f"has the ENTRYPOINT {image.entrypoint}, which runs its arguments (entrypointRunsArguments)"
    if _adapters(settings) and image.files.unread_models:
        yield "is too large to list its files: whether it has the adapters is not looked at"


def _pull_doubts(settings: Settings, place: ImagePlace, target: Target) -> Iterator[str]:
    """Yield what the nodes may lack to pull an image that is in another registry than the stack's own."""
    google, own = settings.google, settings.registry.partition("/")[0]
    granted = google is not None and place.repository.startswith(f"{google.registry}/")
    if granted or (google is None and place.host == own) or _public(target, str(place.digest)):
        return
    if settings.pull_secret:
        if place.host != own:
            yield f"is pulled with Secret {settings.pull_secret}: it has to have credentials for {place.host}"
    elif settings.registry_username and place.host != own:
        yield (
            f"is not public, and registryUsername is of {own}: name a Secret with credentials for "
            f"{place.host} ({NAMESPACE}:pullSecret)"
        )
    elif google is not None and place.host.endswith("-docker.pkg.dev"):
        account = google.nodes.service_account or "the nodes' account (output nodeServiceAccount)"
        path = place.registry.split("/")
        command = (
            f"gcloud artifacts repositories add-iam-policy-binding {path[2]} --project={path[1]} "
            f"--location={place.host.removesuffix('-docker.pkg.dev')} "
            f"--member=serviceAccount:… --role=roles/artifactregistry.reader"
            if len(path) > 2
            else "roles/artifactregistry.reader on its repository"
        )
        yield f"is in a repository that {account} was not granted by this stack: {command}"
    elif not settings.registry_username:
        yield (
            f"is not public, and nothing here lets the nodes pull from {place.host}: name a Secret with "
            f"credentials for it ({NAMESPACE}:pullSecret), unless they have rights of their own"
        )


def _public(target: Target, digest: str) -> bool:
    import httpx  # only a stack that serves such an image needs it

    from modelcar.registry import Registry  # only a stack that serves such an image needs it

    try:
        with Registry(target, timeout=PATIENCE, anonymous=True) as registry:
            return registry.manifest(digest) is not None
    except (InputError, httpx.HTTPError):
        return False


def _or_later(found: Any, otherwise: Any) -> pulumi.Output[Any]:
    """Return what was found. Where nobody looked, a preview leaves it open, and an `up` cannot."""
    if found is not None:
        return pulumi.Output.from_input(found)
    return unknown() if pulumi.runtime.is_dry_run() else pulumi.Output.from_input(otherwise)


@dataclass(frozen=True)
class ExistingImageArgs:
    """found: what is known of it. insecure: asked by plain HTTP.

    signature: whose signature it has to have before anything refers to it; this program signs none that it
        did not build.
    project: the program's folder.
    """

    found: Existing
    insecure: bool = False
    signature: SignatureSettings | None = None
    project: Path = Path()


class ExistingImage(pulumi.ComponentResource):
    """An image that is there already, as `ModelcarImage` tells of one that it built.

    Outputs:
        digest: `sha256:…`, as the stack names it; of an index where that is one.
        storage_uri: `oci://REGISTRY/NAME@sha256:…`, for KServe.
        reference: `REGISTRY/NAME:TAG` where the stack names a tag too, else by digest.
        lock_digest: digest of its lock; empty where it does not say, or was not looked at.
        size_bytes: bytes of its layers; 0 where it was not looked at.
            A preview that did not look leaves both open.

    Raises (inside of the output):
        pulumi.RunError: the image has no signature that counts.
    """

    digest: pulumi.Output[str]
    storage_uri: pulumi.Output[str]
    reference: pulumi.Output[str]
    lock_digest: pulumi.Output[str]
    size_bytes: pulumi.Output[int]

    def __init__(
        self, name: str, args: ExistingImageArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Declare it; nothing is made."""
        super().__init__("modelcar:kserve:ExistingImage", name, None, opts)
        found, place = args.found, args.found.place
        reference = f"{place.repository}@{found.digest}"
        self.digest = once_verified(
            found.digest,
            [(reference, args.insecure)],
            args.signature,
            args.project,
            lambda faults: (
                f"{KEY}: {reference} is not served: {faults[0]}; nothing was deployed. Who trusts it "
                "signs it: python -m modelcar sign"
            ),
        )
        self.storage_uri = self.digest.apply(
            lambda digest: oci_names.storage_uri(place.registry, place.name, digest)
        )
        named = f":{place.tag}" if place.tag else f"@{found.digest}"
        self.reference = pulumi.Output.from_input(f"{place.repository}{named}")
        self.lock_digest = _or_later(found.lock_digest, "")
        self.size_bytes = _or_later(found.size, 0)
        self.register_outputs(
            {
                "digest": self.digest,
                "storageUri": self.storage_uri,
                "reference": self.reference,
                "lockDigest": self.lock_digest,
                "sizeBytes": self.size_bytes,
            }
        )
