"""The stack's settings: typed, and checked as a whole before any resource is declared.

Every key of `Pulumi.<stack>.yaml` below `modelcar:` is a field here. A wrong value, a misspelt key or two
settings that cannot go together are all reported at once, each with what is allowed and the fix.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from components.autoscaling import AutoscalingSettings
from components.autoscaling import problems as autoscaling_problems
from components.checks import CHECKS, NAMESPACE, RESERVED_ENV, problem
from components.egress import EgressSettings
from components.fields import (
    Digest,
    Endpoint,
    HttpPath,
    ImageName,
    Label,
    Mirror,
    ModelName,
    PinnedImage,
    Refused,
    Registry,
    ServiceName,
    StackName,
    quantity,
    quantity_field,
)
from components.gitops import GitOpsSettings
from components.google.checks import problems as google_problems
from components.google.gpus import GPUS
from components.google.settings import GoogleSettings
from components.image_place import ImagePlace, ImageReference, registry_of
from components.ingress import IngressSettings
from components.kernels import problems as kernel_problems
from components.knative import KnativeSettings
from components.knative import problems as knative_problems
from components.kserve_platform import KServeSettings
from components.probes import ProbesSettings
from components.runtime import VllmSettings
from components.runtime import problems as runtime_problems
from components.scheduling import SchedulingSettings
from components.scheduling import problems as scheduling_problems
from components.signature import SignatureSettings, problems_of_files
from components.signature import problems as signature_problems
from components.termination import TerminationSettings
from components.termination import problems as termination_problems
from modelcar.errors import InputError, Problem
from modelcar.lock import lock_path

__all__ = [
    "KEYS",
    "NAMESPACE",
    "PLATFORM_FILE",
    "RESERVED_ENV",
    "Settings",
    "load",
    "quantity",
]

#: Key of the stack that is not a setting of the program itself.
PLATFORM_FILE = "platformFile"


class Settings(BaseModel):
    """What one stack is told; see `Pulumi.yaml` for the same keys with their defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)

    # the model's place among the stack's (`modelcar:models`); a stack with one model has neither
    name: Label | None = None
    former_names: tuple[Label, ...] = ()

    # what is there already, made by hand: of the stack, and of a model
    import_existing: tuple[Literal["Repository", "RepositoryIamMember", "Namespace"], ...] = ()
    import_objects: tuple[Literal["InferenceService", "ServingRuntime", "NetworkPolicy"], ...] = ()

    # Google Cloud: the registry, the cluster and its GPU nodes; a stack without it brings its own
    google: GoogleSettings | None = None

    # the image
    model: ModelName = "qwen2.5-0.5b"
    image: ImageReference | None = None
    entrypoint_runs_arguments: bool = False
    image_name: ImageName | None = None
    architecture: Literal["amd64", "arm64"] = "amd64"
    hub_endpoint: Endpoint | None = None
    fetch_on: Literal["machine", "builder"] = "machine"
    registry: Registry
    registry_insecure: bool = False
    mirrors: tuple[Mirror, ...] = ()
    mirrors_insecure: bool = False
    promote_from: StackName | None = None
    builder: str | None = None
    sbom: bool = True
    signature: SignatureSettings | None = None
    check_reachable: bool = True

    # the cluster
    kubeconfig: str | None = None
    kube_context: str | None = None
    namespace: Label = "kserve-demo"
    create_namespace: bool = True
    deployment_mode: Literal["Standard", "Knative"] = "Standard"
    knative: KnativeSettings | None = None
    kserve: KServeSettings = Field(default_factory=lambda: KServeSettings.model_validate({}))

    # how nodes pull from a registry that does not know them by themselves
    pull_secret: Label | None = None
    registry_username: str | None = None
    registry_password: SecretStr | None = None

    # what the pods may connect to, and who to them
    egress: EgressSettings = Field(default_factory=lambda: EgressSettings.model_validate({}))
    ingress: IngressSettings | None = None

    # who applies the objects to the cluster
    delivery: Literal["cluster", "gitops"] = "cluster"
    gitops: GitOpsSettings | None = None

    # the service
    service_name: ServiceName = "qwen-oci"
    served_model_name: str = ""
    placement: Literal["servingRuntime", "storageUriEnv", "storageUris", "auto"] = "servingRuntime"
    smoke_namespace: Label = "modelcar-smoke"
    rollout: Literal["auto", "Recreate", "RollingUpdate"] = "auto"
    pre_pull: bool = False
    rollback_to: Digest | None = None
    canary_traffic_percent: int | None = Field(None, ge=0, le=100)
    idle: bool = False
    min_replicas: int = Field(1, ge=0, le=1000)
    max_replicas: int = Field(1, ge=1, le=1000)
    await_ready: bool = True
    start_timeout_seconds: int = Field(1800, ge=10, le=86400)

    # the model server
    runtime: Literal["vllm", "custom"] = "vllm"
    vllm: VllmSettings | None = None
    kernels: Literal["use", "require", "off"] = "use"
    shared_runtime: ServiceName | None = None
    server_image: PinnedImage
    server_command: tuple[str, ...] = Field(
        ("python3", "-m", "vllm.entrypoints.openai.api_server"), min_length=1
    )
    server_args: tuple[str, ...] = ()
    server_env: tuple[str, ...] = ()
    server_host_paths: tuple[str, ...] = ()
    server_writable_paths: tuple[str, ...] = ()
    server_port: int = Field(8080, ge=1024, le=65535)
    health_path: HttpPath = "/health"
    gpu: Literal[GPUS] | None = None  # type: ignore[valid-type]
    node_pool: Label | None = None
    cpu: Annotated[str, quantity_field("4 or 500m")] = "4"
    cpu_limit: Annotated[str, quantity_field("4 or 500m")] | None = None
    memory: Annotated[str, quantity_field("16Gi")] = "16Gi"
    shared_memory: Annotated[str, quantity_field("2Gi")] = "2Gi"
    gpu_count: int = Field(1, ge=0, le=16)

    # the pods: where they run, how they are asked, and how they end
    scheduling: SchedulingSettings = Field(default_factory=lambda: SchedulingSettings.model_validate({}))
    probes: ProbesSettings = Field(default_factory=lambda: ProbesSettings.model_validate({}))
    termination: TerminationSettings = Field(default_factory=lambda: TerminationSettings.model_validate({}))
    autoscaling: AutoscalingSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _registry_that_follows(cls, values: Any) -> Any:
        """The stack's own repository is where images go, unless the stack names another registry.

        For an image that is there it need not name any.
        """
        google = values.get("google") if isinstance(values, dict) else None
        if google is None and isinstance(values, dict) and values.get("image"):
            return registry_of(values["image"], _PLACEHOLDERS["registry"]) | values
        if isinstance(google, dict) and "registry" not in values:
            try:
                registry = GoogleSettings.model_validate(google).registry
            except ValidationError:
                registry = _PLACEHOLDERS["registry"]  # what is wrong with google is told, and not this too
            return {**values, "registry": registry}
        return values

    @model_validator(mode="after")
    def _together(self) -> Settings:
        """Check what no field can know alone; every finding is reported."""
        problems = [found for check in CHECKS if (found := check(self)) is not None]
        problems += [*runtime_problems(self), *scheduling_problems(self), *termination_problems(self)]
        problems += [*kernel_problems(self), *autoscaling_problems(self), *knative_problems(self)]
        if self.google:
            problems += google_problems(self, self.google)
        if self.signature:
            problems += signature_problems(self.signature)
        if problems:
            raise _Together(problems)
        return self

    @property
    def key(self) -> str:
        """What the model's resources are named by in the stack; the first of its names, so that they stay."""
        return self.name or self.service_name

    def reached_by(self, kubeconfig: str | None) -> Settings:
        """Return the same settings for a cluster of this kubeconfig; None: the settings' own."""
        return self.model_copy(update={"kubeconfig": kubeconfig}) if kubeconfig else self

    @property
    def uses_cluster(self) -> bool:
        """Whether the program itself declares anything in the cluster."""
        return self.delivery == "cluster" or self.kserve.install

    @property
    def lock_path(self) -> Path:
        """Where the model's lock is; relative to the project, or absolute."""
        return Path(self.model) if self.model.endswith(".lock") else lock_path(Path(), self.model)

    @property
    def repository(self) -> str:
        """Name of the image's repository below the registry."""
        return self.image_name or self.lock_path.parent.name

    @property
    def place(self) -> ImagePlace:
        """Where the model's image is, and for one that is there which."""
        return ImagePlace.of(self.image) if self.image else ImagePlace(self.registry, self.repository)

    @property
    def insecure_place(self) -> bool:
        """Whether that registry is asked by plain HTTP: the stack says so of its own only."""
        return self.registry_insecure and self.place.host == self.registry.partition("/")[0]

    @property
    def needs_pull_access(self) -> bool:
        """Whether the pods' ServiceAccount has to carry a pull secret."""
        return bool(self.pull_secret or self.registry_username)

    @property
    def model_name(self) -> str:
        """The name that clients ask the server for."""
        return self.served_model_name or (
            self.place.name if self.image and self.name is None else self.repository
        )


class _Together(ValueError):
    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("settings that do not go together")
        self.problems = problems


KEYS = {str(field.alias): field for field in Settings.model_fields.values()}

#: What only an entry of `modelcar:models` can say.
OF_ENTRIES = frozenset({"name", "formerNames"})
TOP_LEVEL = frozenset(KEYS) - OF_ENTRIES

#: What a stack says of all of its models, beside the settings (`components/models.py`).
OF_STACK = frozenset({PLATFORM_FILE, "models", "parallelBuilds", "keepRemovedDays"})

#: Stand for a required setting that is wrong or missing while the others are checked together.
_PLACEHOLDERS = {
    "registry": "placeholder.invalid/models",
    "serverImage": "placeholder@sha256:" + "0" * 64,
}

#: Keys that are only right beside another one: where that is wrong, nothing is known of these.
_LEANS_ON_IT = {"google": ("importExisting",), "autoscaling": ("minReplicas",)}

#: Keys whose values are objects.
_OBJECTS = frozenset(
    {
        *("autoscaling", "egress", "gitops", "google", "ingress", "knative", "kserve", "probes"),
        *("scheduling", "signature", "termination", "vllm"),
    }
)

#: Keys whose values may hold secrets; they are never shown.
_HIDDEN = frozenset({"serverEnv", "registryPassword"})

#: Keys that former versions had: what is there instead, and what to do.
_REPLACED = {
    "weights": (
        "model: the name of a locked model",
        f"python -m modelcar lock NAME --folder PATH, and pulumi config set {NAMESPACE}:model NAME",
    ),
    "modelSize": ("the lock, which says it", f"pulumi config rm {NAMESPACE}:modelSize"),
    "baseImage": ("modelcar/base.lock", f"pulumi config rm {NAMESPACE}:baseImage"),
}

_REQUIRED = {
    "registry": "HOST[:PORT]/PATH that modelcars are pushed to",
    "serverImage": "the model server's image, by digest",
}


def load(config: Mapping[str, str], project: Path) -> Settings:
    """Check the configuration of a stack with one model and return its settings.

    `components.models.load_stack` does so for any stack.

    Args:
        config: every configuration value of the stack by full key, as Pulumi hands them over (strings).
        project: the program's folder, to which paths in settings are relative.

    Raises:
        InputError: with every problem that was found.
    """
    values, problems = given(config, project)
    return checked(values, project, problems)


def given(config: Mapping[str, str], project: Path) -> tuple[dict[str, Any], list[Problem]]:
    """Return what a stack says, with the embedded platform's defaults, and what is wrong with the keys."""
    own = own_values(config)
    problems = _unknown_keys(own)
    defaults, missing_platform = _platform_defaults(own.get(PLATFORM_FILE), project)
    values = defaults | {key: parsed(key, value) for key, value in own.items() if key in TOP_LEVEL}
    if missing_platform:
        problems.append(missing_platform)
        # What the file would have offered is not another mistake.
        values = _PLACEHOLDERS | values
    return values, problems


def own_values(config: Mapping[str, str]) -> dict[str, str]:
    """Return the values of this program's keys, without its namespace."""
    prefix = f"{NAMESPACE}:"
    return {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}


def checked(values: Mapping[str, Any], project: Path, problems: Iterable[Problem] = ()) -> Settings:
    """Return one model's settings.

    Raises:
        InputError: with every problem that was found, after those that are known already.
    """
    found = list(problems)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise InputError([*found, *_explain(error, values)]) from None
    if settings.signature:
        found += problems_of_files(settings.signature, project)
    if found:
        raise InputError(found)
    return settings


def _unknown_keys(own: Mapping[str, str]) -> list[Problem]:
    names = sorted([*TOP_LEVEL, *OF_STACK])
    problems = []
    for key in sorted(own.keys() - set(names)):
        if key in _REPLACED:
            problems.append(problem(key, "a key of version 0.1", *_REPLACED[key]))
            continue
        close = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
        fix = (
            f"did you mean {NAMESPACE}:{close[0]}?"
            if close
            else "remove it; the keys are listed in Pulumi.yaml"
        )
        problems.append(problem(key, "unknown key", ", ".join(names), fix))
    return problems


def parsed(key: str, text: str) -> Any:
    """Return a value as it was meant: Pulumi hands it over as text, JSON for anything but a string."""
    annotation = str(KEYS[key].annotation)
    if key in _OBJECTS or annotation.startswith("tuple") or annotation in {"<class 'bool'>", "<class 'int'>"}:
        try:
            return json.loads(text)
        except ValueError:
            return text  # refused by the field's type, with its own words
    return text


def _platform_defaults(name: str | None, project: Path) -> tuple[dict[str, Any], Problem | None]:
    """Return what the embedded platform says of this machine; the stack's own keys win over it."""
    if not name:
        return {}, None
    allowed, fix = "the JSON object that the embedded platform writes", "run `make platform` (or `make up`)"
    try:
        values = json.loads((project / name).read_text())
        found = "" if isinstance(values, dict) else f"{name} holds no JSON object"
    except FileNotFoundError:
        found = f"{name} does not exist"
    except OSError as error:
        found = f"{name} cannot be read ({error.strerror})"
    except ValueError as error:
        found = f"{name} is not JSON: {error}"
    if found:
        return {}, problem(PLATFORM_FILE, found, allowed, fix)
    return {key: value for key, value in values.items() if key in TOP_LEVEL}, None


def _explain(error: ValidationError, values: Mapping[str, Any]) -> list[Problem]:
    """Put pydantic's findings into this project's words, and look behind them for what they hide."""
    problems = list(_problems(error))
    wrong = {str(found["loc"][0]) for found in error.errors() if found["loc"]}
    if wrong:
        # Settings are checked together only where each alone is right: the wrong ones give way for that.
        wrong.update(*(_LEANS_ON_IT.get(key, ()) for key in wrong))
        rest = {key: value for key, value in values.items() if key not in wrong}
        try:
            Settings.model_validate({**_PLACEHOLDERS, **rest})
        except ValidationError as hidden:
            problems += _problems(hidden)
    return problems


def _path(location: tuple[int | str, ...]) -> str:
    """Return a place in the settings as `pulumi config --path` takes it."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def _names(location: tuple[int | str, ...]) -> list[str]:
    """Return the keys of the section that an unknown key stands in."""
    model: type[BaseModel] = Settings
    for part in location[:-1]:
        if isinstance(part, str):  # a number is a place in a list, and says nothing of what the list holds
            field = next(field for field in model.model_fields.values() if field.alias == part)
            model = next(_models_in(field.annotation))
    return sorted(str(field.alias) for field in model.model_fields.values())


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the sections that an annotation is made of: `Nodes | None`, `tuple[Nodes, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _problems(error: ValidationError) -> Iterator[Problem]:
    for found in error.errors():
        cause = found.get("ctx", {}).get("error")
        if isinstance(cause, _Together):
            yield from cause.problems
            continue
        key = _path(found["loc"]) or "settings"
        hidden = bool(found["loc"]) and found["loc"][0] in _HIDDEN
        shown = "not shown: it may hold secrets" if hidden else repr(found["input"])[:120]
        if isinstance(cause, Refused):
            yield problem(key, f"{shown}: {cause.why}", cause.allowed, cause.fix)
        elif found["type"] == "extra_forbidden":
            names = _names(found["loc"])
            close = difflib.get_close_matches(str(found["loc"][-1]), names, n=1, cutoff=0.6)
            fix = f"did you mean {close[0]}?" if close else "remove it"
            yield problem(key, "unknown key", ", ".join(names), fix)
        elif found["type"] == "missing":
            path = "--path " if "." in key else ""
            fix = f"pulumi config set {path}{NAMESPACE}:{key} …"
            yield problem(key, "not set", _REQUIRED.get(key, "a value: it has no default"), fix)
        elif found["type"] == "literal_error":
            allowed = str(found["ctx"]["expected"])
            choices = re.findall(r"'([^']+)'", allowed)
            close = difflib.get_close_matches(str(found["input"]), choices, n=1, cutoff=0.4)
            fix = f"did you mean {close[0]}?" if close else "choose one of these"
            yield problem(key, shown, allowed, fix)
        else:
            yield problem(key, shown, found["msg"], f"correct {NAMESPACE}:{key}")
