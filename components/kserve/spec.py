"""From a component's arguments to what manifests are made of."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import pulumi
from pydantic import TypeAdapter, ValidationError

from components.config import arguments
from components.config.checks.service import hostname
from components.config.checks.together import spec_problems
from components.config.fields import AccountName, Label, LoginHost, SecretName, ServiceName
from components.config.model_spec import ModelSpec
from components.config.probes import ProbesSettings
from components.config.termination import TerminationSettings
from components.config.vllm import VllmSettings
from components.engine.inputs import checked
from components.kserve.server import CustomServer, ServerResources, VllmServer
from modelcar import oci_names
from modelcar.errors import InputError, Problem

#: Arguments of components, by the settings of a stack that say the same.
_ARGUMENTS = {
    "serviceName": "name",
    "servedModelName": "server.served_model_name",
    "serverImage": "server.image",
    "serverCommand": "server.command",
    "serverArgs": "server.args",
    "serverEnv": "server.env",
    "serverPort": "server.port",
    "serverHostPaths": "server.host_paths",
    "serverWritablePaths": "server.writable_paths",
    "healthPath": "server.health_path",
    "readAhead": "server.read_ahead",
    "vllm": "server",
    "kernels": "server.kernels",
    "runtime": "server",
    "gpuCount": "resources.gpus",
    "cpu": "resources.cpu",
    "cpuLimit": "resources.cpu_limit",
    "memory": "resources.memory",
    "sharedMemory": "resources.shared_memory",
    "minReplicas": "replicas.min",
    "maxReplicas": "replicas.max",
    "idle": "replicas.idle",
    "rollout": "replicas.rollout",
    "canaryTrafficPercent": "replicas.canary_traffic_percent",
    # What only a run tells, of the cluster.
    "kubeconfig": "access.kubeconfig",
    "kubeContext": "access.context",
}

#: Arguments of components that are one name each, as a stack's settings of that kind.
_TYPES: Mapping[str, TypeAdapter[str]] = {
    "namespace": TypeAdapter(Label),
    "service": TypeAdapter(ServiceName),
    "service_account": TypeAdapter(AccountName),
    "secret": TypeAdapter(SecretName),
    "host": TypeAdapter(LoginHost),
}


def model_spec(
    server: VllmServer | CustomServer,
    resources: ServerResources,
    probes: ProbesSettings,
    termination: TerminationSettings,
    *,
    namespace: Any = None,
    **more: Any,
) -> ModelSpec:
    """Return a model as manifests need it.

    Args:
        server, resources, probes, termination: as the components have them.
        namespace: where it is known.
        more: fields of ModelSpec.

    Raises:
        modelcar.errors.InputError: with everything that is wrong, by the arguments' names.
    """
    values = server_fields(server, resources) | {"probes": probes, "termination": termination} | more
    if isinstance(namespace, str):
        values["namespace"] = namespace
    spec = validated(values)
    if problems := spec_problems(spec):
        raise InputError(list(as_arguments(problems)))
    return spec


def validated(values: Mapping[str, Any], names: Mapping[str, str] = _ARGUMENTS) -> ModelSpec:
    """Return a model whose fields are right each; what does not go together is not looked at.

    Args:
        values: by field of ModelSpec.
        names: what the component calls them, by the setting of a stack.

    Raises:
        modelcar.errors.InputError: with everything that is wrong, by the arguments' names.
    """
    return arguments.validated(ModelSpec, values, names)


def server_fields(server: VllmServer | CustomServer, resources: ServerResources) -> dict[str, Any]:
    """Return the fields of ModelSpec that a server and what it asks for come to."""
    found: dict[str, Any] = {
        "runtime": "custom",
        "server_image": server.image,
        "server_command": server.command,
        "server_args": server.args,
        "server_env": tuple(f"{name}={value}" for name, value in server.env.items()),
        "server_host_paths": server.host_paths,
        "server_writable_paths": server.writable_paths,
        "server_port": server.port,
        "health_path": server.health_path,
        "read_ahead": server.read_ahead,
        "served_model_name": server.served_model_name,
        "gpu_count": resources.gpus,
        "cpu": resources.cpu,
        "cpu_limit": resources.cpu_limit,
        "memory": resources.memory,
        "shared_memory": resources.shared_memory,
    }
    if isinstance(server, VllmServer):
        typed = {
            name: getattr(server, name) for name in server.model_fields_set & VllmSettings.model_fields.keys()
        }
        found |= {"runtime": "vllm", "vllm": VllmSettings(**typed) if typed else None}
        if "kernels" in server.model_fields_set:
            found["kernels"] = server.kernels
    return found


def as_arguments(problems: Iterable[Problem]) -> Iterable[Problem]:
    """Yield the same problems, with the names that ModelServiceArgs has for what is wrong."""
    return arguments.as_arguments(problems, _ARGUMENTS)


@contextmanager
def in_own_words() -> Iterator[None]:
    """Let a run's errors pass, with the names that a program of one's own has for a stack's settings.

    Raises:
        pulumi.RunError: the same one.
    """
    try:
        yield
    except pulumi.RunError as error:
        raise pulumi.RunError(arguments.in_own_words(str(error), _ARGUMENTS)) from None


def argument_name(field: str) -> str:
    """Return what a program calls a field of ModelSpec."""
    return _ARGUMENTS.get(str(ModelSpec.model_fields[field].alias), field)


def checked_namespace(namespace: pulumi.Input[str]) -> pulumi.Input[str]:
    """Return a namespace's name, checked as soon as it is known.

    Raises:
        modelcar.errors.InputError: Kubernetes would refuse it.
    """
    return checked_name("namespace", namespace)


def checked_name(argument: str, value: pulumi.Input[str]) -> pulumi.Input[str]:
    """Return the value of an argument that names something, checked as soon as it is known.

    Args:
        argument: what the program calls it. value: of it.

    Raises:
        modelcar.errors.InputError: Kubernetes, KServe or a registry would refuse it.
    """
    return checked(value, partial(_check_name, argument))


def checked_account(name: pulumi.Input[str] | None) -> pulumi.Input[str] | None:
    """Return the name of a ServiceAccount, checked as soon as it is known; None: the namespace's own.

    Raises:
        modelcar.errors.InputError: Kubernetes would refuse it.
    """

    def check(found: Any) -> None:
        if found is not None:
            _check_name("service_account", found)

    account: Any = name
    return checked(account, check)


def namespace_of(
    namespace: pulumi.Input[str], spec: ModelSpec, names: Mapping[str, str] = _ARGUMENTS
) -> pulumi.Input[str]:
    """Return the namespace of a service, checked as soon as it is known: by itself, and with the service.

    Args:
        namespace: its name.
        spec: the service's.
        names: what the component calls what is wrong, by the setting of a stack.

    Raises:
        modelcar.errors.InputError: Kubernetes would refuse it, or the service's host there.
    """

    def check(found: str) -> None:
        _check_name("namespace", found)
        if wrong := hostname(spec.model_copy(update={"namespace": found})):
            raise InputError(list(arguments.as_arguments([wrong], names)))

    return checked(namespace, check)


def checked_storage_uri(uri: pulumi.Input[str]) -> pulumi.Input[str]:
    """Return an image's URI, checked as soon as it is known.

    Raises:
        modelcar.errors.InputError: it is none of an image by digest.
    """
    return checked(uri, _check_storage_uri)


def identity(namespace: pulumi.Input[str], name: str, imports: Collection[str]) -> str:
    """Return what the provider knows an object by; only an import needs it.

    Raises:
        modelcar.errors.InputError: something is to be taken over, and its namespace is not known yet.
    """
    if isinstance(namespace, str):
        return f"{namespace}/{name}"
    if imports:
        found = "an output of another resource, beside imports: what is taken over is there already"
        raise InputError([Problem("namespace", found, "the namespace's name", "write it as text")])
    return ""


def _check_name(argument: str, value: str) -> None:
    try:
        _TYPES[argument].validate_python(value)
    except ValidationError as error:
        cause = error.errors()[0]["ctx"]["error"]  # a Refused, of all these types
        value = f"{value!r:.120}: {cause.why}"
        raise InputError([Problem(argument, value, cause.allowed, cause.fix)]) from None


def _check_storage_uri(uri: Any) -> None:
    scheme, _, image = uri.partition("://") if isinstance(uri, str) else ("", "", "")
    if scheme == "oci" and oci_names.PINNED.fullmatch(image):
        return
    found, fix = (
        repr(uri),
        "take the output storage_uri of a ModelcarImage, or the image's URI with its digest",
    )
    if scheme == "oci" and "@" not in image:
        found += ": a tag, which somebody else's push can change"
        fix = f"take the digest of it: docker buildx imagetools inspect {image}"
    raise InputError(
        [Problem("storage_uri", found, "oci://REGISTRY/NAME@sha256:<64 hexadecimal digits>", fix)]
    )
