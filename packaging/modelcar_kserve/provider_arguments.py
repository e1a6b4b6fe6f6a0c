"""From what another language's program says to the arguments of components."""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import pulumi
from pydantic.alias_generators import to_camel

from modelcar_kserve import provider_types
from modelcar_kserve.components.cluster.guard import ClusterAccess
from modelcar_kserve.components.config.section import Section
from modelcar_kserve.components.kserve.cluster_provider import cluster_provider
from modelcar_kserve.components.kserve.server import CustomServer, VllmServer
from modelcar_kserve.modelcar.errors import InputError, Problem

T = TypeVar("T")

NAME = "modelcar-kserve"

#: What a program says in place of `server`, which is of one type or another.
SERVERS = {"vllm_server": VllmServer, "custom_server": CustomServer}

#: Names of arguments, and of fields of sections, as Python has them.
_NAMES = frozenset(
    name
    for kind in vars(provider_types).values()
    if typing.is_typeddict(kind)
    for name in inspect.get_annotations(kind)
)
#: What a message says of arguments that have another place here.
_PLACES = {"access.kubeconfig": "kubeconfig", "access.context": "kubeContext"}
_FIELDS = "|".join({*VllmServer.model_fields, *CustomServer.model_fields})
_NAME = re.compile(
    rf"\b(?:access\.(?:kubeconfig|context)|server(?=\.(?:{_FIELDS})\b)|[a-z]+(?:_[a-z0-9]+)+)\b"
)


class Provided(pulumi.ComponentResource):
    """A component of the provider: it makes one of the package's, and tells what that tells."""

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare it by the name of its class."""
        super().__init__(f"{NAME}:index:{type(self).__name__}", name, None, opts)

    def inner(self, opts: pulumi.ResourceOptions | None) -> pulumi.ResourceOptions:
        """Return the options of what is inside, which waits for what the component waits for."""
        opts = opts or pulumi.ResourceOptions()
        return pulumi.ResourceOptions(parent=self, depends_on=opts.depends_on, protect=opts.protect)

    def make(
        self,
        kind: Callable[..., object],
        arguments_of: type,
        name: str,
        said: Mapping[str, Any],
        opts: pulumi.ResourceOptions | None,
    ) -> None:
        """Make one of the package's components of what the program says, and tell its outputs."""
        with told(name, said):
            self.tell(kind(name, arguments(arguments_of, said), self.inner(opts)))

    def make_in_cluster(
        self,
        kind: Callable[..., object],
        arguments_of: type,
        name: str,
        said: Mapping[str, Any],
        opts: pulumi.ResourceOptions | None,
    ) -> None:
        """As `make`, for a component whose objects are in a cluster, and which may ask that."""
        with told(name, said):
            place = in_cluster(self, name, said, opts)
            asks = any(field.name == "access" for field in dataclasses.fields(arguments_of))
            own = {"access": place.access} if asks else {}
            self.tell(kind(name, arguments(arguments_of, said, **own), place.options))

    def tell(self, made: object, **more: Any) -> None:
        """Take the outputs over that the class names; more: those that `made` has by another name, or not."""
        outputs = inspect.get_annotations(type(self))
        for name in outputs:
            setattr(self, name, pulumi.Output.from_input(more[name] if name in more else getattr(made, name)))
        self.register_outputs({to_camel(name): getattr(self, name) for name in outputs})


@contextmanager
def told(name: str, said: Mapping[str, Any]) -> Iterator[None]:
    """End a component whose arguments are wrong with what is wrong.

    Args:
        name: of the component.
        said: its arguments.

    Raises:
        pulumi.RunError: an argument is wrong; with key, value, what is allowed and the fix.
    """
    try:
        yield
    except InputError as error:
        server = next((one for one in SERVERS if said.get(one) is not None), "vllm_server")
        named = partial(as_property, server=server)
        problems = [
            Problem(named(one.key), one.value, named(one.allowed), named(one.fix)) for one in error.problems
        ]
        raise pulumi.RunError(f"{name}: the arguments are not fit:\n{InputError(problems)}") from None


def as_property(text: str, server: str = "vllm_server") -> str:
    """Return a text of the components with the names that other languages have for arguments.

    Args:
        text: with Python's names.
        server: what the program says in place of `server`.
    """

    def renamed(found: re.Match[str]) -> str:
        name = server if found[0] == "server" else found[0]
        return _PLACES.get(name) or (to_camel(name) if name in _NAMES else name)

    return _NAME.sub(renamed, text)


def arguments(kind: type[T], said: Mapping[str, Any], **own: Any) -> T:
    """Return the arguments of a component.

    Args:
        kind: class of the arguments.
        said: by the program; what the class does not have is left out.
        own: arguments that the program does not say.

    Raises:
        InputError: an argument is wrong.
    """
    # Pulumi's own Input names two types that its users' modules need not have.
    hints = typing.get_type_hints(kind, None, {"Output": pulumi.Output, "T": Any})
    values = {
        field.name: _made(hints[field.name], said[field.name], field.name)
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
        if said.get(field.name) is not None and field.name not in own
    }
    if "server" in hints:
        values["server"] = server(said)
    return kind(**values, **own)


def server(said: Mapping[str, Any]) -> VllmServer | CustomServer:
    """Return the model server.

    Raises:
        InputError: none is named, or two.
    """
    found = [_made(kind, said[name], name) for name, kind in SERVERS.items() if said.get(name) is not None]
    if len(found) != 1:
        value = "both are set" if found else "neither is set"
        raise InputError([Problem("vllmServer, customServer", value, "one of them", "set one of them")])
    return found[0]  # type: ignore[no-any-return]


def _made(hint: Any, value: Any, name: str) -> Any:
    """Return a value as the arguments have it: sections of maps, and paths of texts."""
    for part in _parts(hint):
        if isinstance(part, type) and issubclass(part, Section):
            return _section(part, plain(value, name), name)
        if isinstance(part, type) and dataclasses.is_dataclass(part) and isinstance(value, Mapping):
            return part(**plain(value, name))
        if get_origin(part) in {dict, Mapping} and dataclasses.is_dataclass(get_args(part)[1]):
            return {key: get_args(part)[1](**plain(one, name)) for key, one in value.items()}
        if part is Path:
            return Path(value)
    if isinstance(value, pulumi.Output):
        return value
    return tuple(plain(value, name)) if isinstance(value, list) else whole(value)


def _section(kind: type[Section], values: Mapping[str, Any], name: str) -> Section:
    """Return a section; what is wrong in it is told by its place, as other languages have no class of it."""
    try:
        return kind(**values)
    except InputError as error:
        own = f"{kind.__name__}."
        raise InputError(
            dataclasses.replace(
                one, key=one.key.replace(own, f"{name}."), fix=one.fix.replace(own, f"{name}.")
            )
            for one in error.problems
        ) from None


def _parts(hint: Any) -> tuple[Any, ...]:
    several = get_origin(hint) in {typing.Union, types.UnionType}
    return get_args(hint) if several and str not in get_args(hint) else (hint,)


def plain(value: Any, key: str) -> Any:
    """Return a value that holds no output of another resource.

    Raises:
        InputError: it holds one.
    """
    if isinstance(value, pulumi.Output):
        fix = "write it down, or read it from the stack's configuration"
        raise InputError([Problem(key, "an output of another resource", "a plain value", fix)])
    if isinstance(value, Mapping):
        return {name: plain(part, f"{key}.{name}") for name, part in value.items()}
    if isinstance(value, list):
        return [plain(part, f"{key}[{number}]") for number, part in enumerate(value)]
    return whole(value)


def whole(value: Any) -> Any:
    """Return numbers as they were written: all of them come as floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


@dataclasses.dataclass(frozen=True)
class InCluster:
    """Where a component's objects are declared, and how the cluster is asked."""

    options: pulumi.ResourceOptions
    access: ClusterAccess | None


def in_cluster(
    parent: Provided,
    name: str,
    said: Mapping[str, Any],
    opts: pulumi.ResourceOptions | None,
) -> InCluster:
    """Return where the objects of a component are declared.

    Args:
        parent: the component. name: of it.
        said: with a kubeconfig and the cluster's identifier, or without.
        opts: of the component; a provider for Kubernetes among them declares the objects.
    """
    own = parent.inner(opts)
    kubeconfig, context = said.get("kubeconfig"), said.get("kube_context")
    if parent.get_provider("kubernetes:core/v1:Namespace") is not None:
        return InCluster(own, ClusterAccess(kubeconfig, context) if kubeconfig or context else None)
    identifier = said.get("cluster_identifier") or None  # an empty one would be every cluster's
    provider = cluster_provider(f"{name}-cluster", kubeconfig, context, own, identifier)
    options = pulumi.ResourceOptions.merge(own, pulumi.ResourceOptions(provider=provider))
    return InCluster(options, ClusterAccess(kubeconfig, context))
