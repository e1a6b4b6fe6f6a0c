"""The stack's settings: typed, and checked as a whole before any resource is declared.

Every key of `Pulumi.<stack>.yaml` below `modelcar:` is a field here. A wrong value, a misspelt key or two
settings that cannot go together are all reported at once, each with what is allowed and the fix.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pulumi
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from components import oci
from modelcar.errors import InputError, Problem, refuse

NAMESPACE = "modelcar"

#: Set by the program on the server; a stack that could unset them could reach a model hub at run time.
RESERVED_ENV = frozenset({"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HOME", "STORAGE_URI"})

#: KServe fills an unset request with this much; a smaller limit then makes the Deployment invalid.
QUANTITY = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<unit>m|[kMGTPE]|[KMGTPE]i)?")
UNITS = {"m": 1e-3, "k": 1e3, **{u: 1000.0 ** (i + 2) for i, u in enumerate("MGTPE")}}
UNITS |= {f"{u}i": 1024.0 ** (i + 1) for i, u in enumerate("KMGTPE")}


class Refused(ValueError):
    """A value that is not allowed; carries what is allowed and the fix."""

    def __init__(self, why: str, allowed: str, fix: str) -> None:
        """Say why, what is allowed instead, and how to get there."""
        super().__init__(why)
        self.why, self.allowed, self.fix = why, allowed, fix


def _matches(pattern: re.Pattern[str], why: str, allowed: str, fix: str) -> BeforeValidator:
    def check(value: Any) -> Any:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise Refused(why, allowed, fix)
        return value

    return BeforeValidator(check)


def _pinned(value: Any) -> Any:
    if isinstance(value, str) and oci.PINNED.fullmatch(value):
        return value
    if isinstance(value, str) and "@" not in value:
        why = "names an image by tag, which somebody else's push can change"
        fix = f"take the digest of it: docker buildx imagetools inspect {value}"
        raise Refused(why, "IMAGE@sha256:<64 hexadecimal digits>", fix)
    raise Refused(
        "not an image by digest", "IMAGE@sha256:<64 hexadecimal digits>", "copy it as the registry shows it"
    )


def _base(value: Any) -> Any:
    return value if isinstance(value, str) and oci.LAYOUT.fullmatch(value) else _pinned(value)


def _registry(value: Any) -> Any:
    allowed, fix = (
        "HOST[:PORT]/PATH, in lower case, without scheme and tag",
        "for example europe-docker.pkg.dev/PROJECT/REPO",
    )
    if not isinstance(value, str) or not oci.REGISTRY.fullmatch(value):
        why = "has a scheme" if isinstance(value, str) and "://" in value else "not a place in a registry"
        raise Refused(why, allowed, fix)
    return value


def quantity(text: str) -> float:
    """Return a Kubernetes quantity (`500m`, `16Gi`) as a number of its base unit.

    Raises:
        ValueError: it is not one.
    """
    found = QUANTITY.fullmatch(text)
    if not found:
        raise ValueError(f"not a Kubernetes quantity: {text!r}")
    return float(found["number"]) * UNITS.get(found["unit"] or "", 1.0)


def _quantity(example: str) -> BeforeValidator:
    def check(value: Any) -> Any:
        text = str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
        if not isinstance(text, str) or not QUANTITY.fullmatch(text) or quantity(text) <= 0:
            raise Refused(
                "not a Kubernetes quantity above zero", f"for example {example}", "use Ki, Mi, Gi or m"
            )
        return text

    return BeforeValidator(check)


_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SERVICE = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")  # KServe's validating webhook: IsvcNameFmt
_LABEL_FIX = "use lower-case letters, digits and '-', starting and ending with a letter or digit"

ImageName = Annotated[
    str,
    _matches(oci.NAME, "not a repository name", "lower case, digits, and single . _ - between", _LABEL_FIX),
]
ServiceName = Annotated[
    str,
    _matches(
        _SERVICE, "KServe refuses this name", f"a match of {_SERVICE.pattern}", "start with a letter; no dots"
    ),
]
Label = Annotated[
    str, _matches(_LABEL, "Kubernetes refuses this name", f"a match of {_LABEL.pattern}", _LABEL_FIX)
]
PinnedImage = Annotated[str, BeforeValidator(_pinned)]
BaseImage = Annotated[str, BeforeValidator(_base)]
Registry = Annotated[str, BeforeValidator(_registry)]


class Settings(BaseModel):
    """What one stack is told; see `Pulumi.yaml` for the same keys with their defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # the image
    image_name: ImageName = Field("qwen2.5-0.5b", alias="imageName")
    weights: str = "modelcar/data/qwen2.5-0.5b"
    registry: Registry
    registry_insecure: bool = Field(False, alias="registryInsecure")
    base_image: BaseImage = Field(alias="baseImage")
    builder: str | None = None
    check_reachable: bool = Field(True, alias="checkReachable")

    # the cluster
    kubeconfig: str | None = None
    kube_context: str | None = Field(None, alias="kubeContext")
    namespace: Label = "kserve-demo"
    create_namespace: bool = Field(True, alias="createNamespace")
    deployment_mode: Literal["Standard", "Knative"] = Field("Standard", alias="deploymentMode")

    # the service
    service_name: ServiceName = Field("qwen-oci", alias="serviceName")
    served_model_name: str = Field("", alias="servedModelName")
    placement: Literal["servingRuntime", "storageUriEnv", "storageUris"] = "servingRuntime"
    rollout: Literal["auto", "Recreate", "RollingUpdate"] = "auto"
    min_replicas: int = Field(1, alias="minReplicas", ge=0, le=1000)
    max_replicas: int = Field(1, alias="maxReplicas", ge=1, le=1000)
    await_ready: bool = Field(True, alias="awaitReady")
    start_timeout_seconds: int = Field(1800, alias="startTimeoutSeconds", ge=10, le=86400)

    # the model server
    server_image: PinnedImage = Field(alias="serverImage")
    server_command: tuple[str, ...] = Field(
        ("python3", "-m", "vllm.entrypoints.openai.api_server"), alias="serverCommand", min_length=1
    )
    server_args: tuple[str, ...] = Field((), alias="serverArgs")
    server_env: tuple[str, ...] = Field((), alias="serverEnv")
    server_host_paths: tuple[str, ...] = Field((), alias="serverHostPaths")
    server_port: int = Field(8080, alias="serverPort", ge=1024, le=65535)
    cpu: Annotated[str, _quantity("4 or 500m")] = "4"
    cpu_limit: Annotated[str, _quantity("4 or 500m")] | None = Field(None, alias="cpuLimit")
    memory: Annotated[str, _quantity("16Gi")] = "16Gi"
    shared_memory: Annotated[str, _quantity("2Gi")] = Field("2Gi", alias="sharedMemory")
    gpu_count: int = Field(1, alias="gpuCount", ge=0, le=16)

    @model_validator(mode="after")
    def _together(self) -> Settings:
        """Check what no field can know alone; every finding is reported."""
        problems = [problem for check in CHECKS if (problem := check(self)) is not None]
        if problems:
            raise _Together(problems)
        return self

    @property
    def model_name(self) -> str:
        """The name that clients ask the server for."""
        return self.served_model_name or self.image_name


class _Together(ValueError):
    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("settings that do not go together")
        self.problems = problems


def _problem(key: str, value: object, allowed: str, fix: str) -> Problem:
    return Problem(f"{NAMESPACE}:{key}", str(value), allowed, fix)


def _hostname(settings: Settings) -> Problem | None:
    # KServe names hosts `<name>-predictor-<namespace>`, each a DNS label (RFC 1123).
    label = f"{settings.service_name}-predictor-{settings.namespace}"
    if len(label) <= 63:
        return None
    value = f"{settings.service_name} gives the host label {label} ({len(label)} characters)"
    return _problem("serviceName", value, "63 characters at most", "shorten serviceName or namespace")


def _replicas(settings: Settings) -> Problem | None:
    if settings.max_replicas < max(settings.min_replicas, 1):
        value = f"{settings.max_replicas}, below minReplicas {settings.min_replicas}"
        return _problem(
            "maxReplicas", value, "at least minReplicas", "raise maxReplicas or lower minReplicas"
        )
    return None


def _cpu(settings: Settings) -> Problem | None:
    if settings.cpu_limit and quantity(settings.cpu_limit) < quantity(settings.cpu):
        value = f"{settings.cpu_limit}, below the request modelcar:cpu {settings.cpu}"
        return _problem("cpuLimit", value, "at least modelcar:cpu", "raise cpuLimit or lower cpu")
    return None


def _rollout(settings: Settings) -> Problem | None:
    if settings.rollout != "auto" and settings.deployment_mode != "Standard":
        value = (
            f"{settings.rollout} in deployment mode {settings.deployment_mode}, which has its own revisions"
        )
        return _problem("rollout", value, "auto there", "remove modelcar:rollout")
    return None


def _scale_to_zero(settings: Settings) -> Problem | None:
    if settings.min_replicas == 0 and settings.deployment_mode == "Standard":
        value = "0 in deployment mode Standard, where the HorizontalPodAutoscaler makes it 1"
        return _problem("minReplicas", value, "1 or more, or deploymentMode Knative", "set minReplicas to 1")
    return None


def _storage_uris(settings: Settings) -> Problem | None:
    if settings.placement == "storageUris" and settings.deployment_mode != "Standard":
        value = f"storageUris in deployment mode {settings.deployment_mode}"
        fix = "use servingRuntime, which works in every mode"
        return _problem("placement", value, "servingRuntime or storageUriEnv there", fix)
    return None


def _environment(settings: Settings) -> Problem | None:
    for entry in settings.server_env:
        name, separator, _ = entry.partition("=")
        if not separator or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            return _problem(
                "serverEnv", f"an entry named {name[:40]!r}", "NAME=VALUE entries", "write NAME=VALUE"
            )
        if name in RESERVED_ENV:
            fix = "remove the entry: the program sets it"
            return _problem(
                "serverEnv", f"{name} is set", f"any name but {', '.join(sorted(RESERVED_ENV))}", fix
            )
    return None


def _host_paths(settings: Settings) -> Problem | None:
    for path in settings.server_host_paths:
        if not path.startswith("/") or ".." in Path(path).parts or path == "/":
            return _problem("serverHostPaths", path, "absolute paths below /", "give the folder's full path")
    if settings.server_host_paths and settings.gpu_count:
        value = f"{len(settings.server_host_paths)} folders on a stack with GPUs"
        fix = "put the server into serverImage instead"
        return _problem("serverHostPaths", value, "[] but on the local stack", fix)
    return None


def _templates(settings: Settings) -> Problem | None:
    # KServe runs a ServingRuntime's container through Go templates ({{.Name}}).
    for argument in (*settings.server_command, *settings.server_args):
        if "{{" in argument:
            return _problem("serverArgs", argument, "no '{{', which KServe expands", "write the value itself")
    return None


CHECKS = (
    _hostname,
    _replicas,
    _cpu,
    _rollout,
    _scale_to_zero,
    _storage_uris,
    _environment,
    _host_paths,
    _templates,
)

#: Keys of the stack that are not settings of the program itself.
PLATFORM_FILE = "platformFile"


def load(config: Mapping[str, str], project: Path) -> Settings:
    """Check the stack's configuration and return its settings.

    Args:
        config: every configuration value of the stack by full key, as Pulumi hands them over (strings).
        project: the program's folder, to which paths in settings are relative.

    Raises:
        InputError: with every problem that was found.
    """
    prefix = f"{NAMESPACE}:"
    own = {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
    problems = _unknown_keys(own)
    known = {key: value for key, value in own.items() if key in KEYS}
    values = _platform_defaults(own.get(PLATFORM_FILE), project) | {
        key: _parsed(key, value) for key, value in known.items()
    }
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise InputError([*problems, *_problems(error)]) from None
    if problems:
        raise InputError(problems)
    return settings


def from_pulumi(project: Path) -> Settings:
    """Return the settings of the stack that Pulumi is running.

    Raises:
        InputError: as `load`.
    """
    # pulumi.Config reads one key at a time; a misspelt key is found only by looking at all of them.
    values = {**pulumi.runtime.config.get_config_env(), **pulumi.runtime.config.CONFIG.get()}
    return load(values, project)


KEYS = {field.alias or name: field for name, field in Settings.model_fields.items()}


def _unknown_keys(own: Mapping[str, str]) -> list[Problem]:
    problems = []
    names = [*KEYS, PLATFORM_FILE]
    for key in own.keys() - set(names):
        close = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
        fix = (
            f"did you mean {NAMESPACE}:{close[0]}?"
            if close
            else "remove it; the keys are listed in Pulumi.yaml"
        )
        problems.append(_problem(key, "unknown key", ", ".join(sorted(names)), fix))
    return sorted(problems, key=lambda problem: problem.key)


def _parsed(key: str, text: str) -> Any:
    """Pulumi hands every value over as text: JSON for anything but a string."""
    annotation = str(KEYS[key].annotation)
    if annotation.startswith("tuple") or annotation in {"<class 'bool'>", "<class 'int'>"}:
        try:
            return json.loads(text)
        except ValueError:
            return text  # refused by the field's type, with its own words
    return text


def _platform_defaults(name: str | None, project: Path) -> dict[str, Any]:
    """Return what the embedded platform says of this machine; the stack's own keys win over it."""
    if not name:
        return {}
    path = project / name
    key = f"{NAMESPACE}:{PLATFORM_FILE}"
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        allowed = "the file that the embedded platform writes"
        raise refuse(
            key, f"{name} does not exist", allowed=allowed, fix="run `make platform` (or `make up`)"
        ) from None
    except ValueError as error:
        fix = "run `make platform`, which writes it again"
        raise refuse(key, f"{name} is not JSON: {error}", allowed="a JSON object", fix=fix) from None
    return {field: value for field, value in values.items() if field in KEYS}


def _problems(error: ValidationError) -> list[Problem]:
    """Put pydantic's findings into this project's words."""
    problems: list[Problem] = []
    for found in error.errors():
        cause = found.get("ctx", {}).get("error")
        if isinstance(cause, _Together):
            problems.extend(cause.problems)
            continue
        key = str(found["loc"][0]) if found["loc"] else "settings"
        value = "not set" if found["type"] == "missing" else repr(found["input"])[:120]
        if isinstance(cause, Refused):
            problems.append(_problem(key, f"{value}: {cause.why}", cause.allowed, cause.fix))
        elif found["type"] == "missing":
            fix = f"pulumi config set {NAMESPACE}:{key} …"
            problems.append(_problem(key, value, DESCRIPTIONS.get(key, "a value: it has no default"), fix))
        elif found["type"] == "literal_error":
            allowed = str(found["ctx"]["expected"])
            close = difflib.get_close_matches(
                str(found["input"]), re.findall(r"'([^']+)'", allowed), n=1, cutoff=0.4
            )
            fix = f"did you mean {close[0]}?" if close else "choose one of these"
            problems.append(_problem(key, value, allowed, fix))
        else:
            problems.append(_problem(key, value, found["msg"], f"correct {NAMESPACE}:{key}"))
    return problems


DESCRIPTIONS = {
    "registry": "HOST[:PORT]/PATH that modelcars are pushed to",
    "baseImage": "a small image with sh, ln, sleep and ls (busybox), by digest",
    "serverImage": "the model server's image, by digest",
}
