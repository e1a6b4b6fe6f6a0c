"""Writes the types of the component provider: `packaging/modelcar_kserve/provider_types.py`.

Pulumi makes the schema for other languages of TypedDicts. They follow from the arguments and sections that
Python programs use, so that both have the same fields, with the same words.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import types
import typing
from collections.abc import Awaitable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import pulumi
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from components.config.network import EgressSettings, IngressSettings
from components.config.reference import texts_of
from components.google.cloud import GoogleCloudArgs
from components.google.node_account import NodeServiceAccountArgs
from components.google.node_pool import GpuNodePoolArgs
from components.google.registry import ModelRegistryArgs
from components.image.modelcar_image import ModelcarImageArgs
from components.kserve.autoscaler import AutoscalerArgs
from components.kserve.egress import EgressPolicyArgs
from components.kserve.ingress import IngressPolicyArgs
from components.kserve.kserve_platform import KServePlatformArgs
from components.kserve.model_service import ModelServiceArgs
from components.kserve.pre_pull import PrePullArgs
from components.kserve.pull_access import PullAccessArgs
from components.kserve.server import CustomServer, VllmServer
from components.kserve.shared_runtime import SharedRuntimeArgs
from local.instance import PROJECT

TARGET = PROJECT / "packaging/modelcar_kserve/provider_types.py"
HEAD = '''"""The types of the component provider's inputs; written by `make reference`."""

# Without `from __future__ import annotations`: Pulumi reads the types themselves.
from typing import NotRequired, TypedDict

import pulumi
'''
#: What no other language can hold, and why it is left out.
LEFT_OUT = {
    ("ModelcarImageArgs", "base"): "an object of Python; the architecture chooses one",
    ("ModelcarImageArgs", "builds"): "an object of Python's asyncio",
}
#: A text that another resource may produce.
INPUT = "pulumi.Input[str]"


@dataclass(frozen=True)
class Field:
    """One field of a type: its annotation in Python, and what it is for."""

    name: str
    annotation: str
    text: str
    required: bool = False


@dataclass(frozen=True)
class Type:
    """One TypedDict."""

    name: str
    text: str
    fields: tuple[Field, ...]


#: Of components in a cluster, in place of `access`.
CLUSTER = (
    Field(
        "kubeconfig",
        INPUT,
        "Text or path of the cluster's kubeconfig; by default kubectl's own. Where the options of the "
        "component have a Kubernetes provider, that declares the objects, and the program only asks the "
        "cluster by the kubeconfig, if there is one.",
    ),
    Field("kube_context", "str", "Context in the kubeconfig; by default the current one."),
    Field(
        "cluster_identifier",
        INPUT,
        "What tells the cluster from every other one as long as it lives: clusterIdentifier of GoogleCloud, "
        "or the DNS name of a GKE cluster. With it another address or certificate authority in the "
        "kubeconfig makes no object anew; giving it later makes none anew either. It is for the provider "
        "that the component makes: where the options have one, give it to that.",
    ),
)
IN_CLUSTER = (
    *(ModelServiceArgs, SharedRuntimeArgs, EgressPolicyArgs, IngressPolicyArgs, PullAccessArgs),
    *(PrePullArgs, AutoscalerArgs, KServePlatformArgs),
)
ELSEWHERE = (ModelcarImageArgs, ModelRegistryArgs, NodeServiceAccountArgs, GpuNodePoolArgs, GoogleCloudArgs)
#: In place of `server`, which is of one type or another: no schema has such a field.
SERVERS = (
    (VllmServer, "vLLM, as the model server. Either this or customServer."),
    (CustomServer, "Another model server. Either this or vllmServer."),
)
#: Of an image that a ServedModel builds: these are the model's own, the others are its options.
OF_A_MODEL = ("lock", "registry", "project")


def camel(name: str) -> str:
    """Return a name as a schema has it."""
    first, *others = name.split("_")
    return first + "".join(part.capitalize() for part in others)


def text_of(owner: type) -> str:
    """Return what a class is for, without the key that a stack has it by."""
    first = " ".join((owner.__doc__ or "").split("\n\n")[0].split())
    first = re.sub(r"^`modelcar:\w+`: ", "", first)
    return _capital(first)


def _capital(text: str) -> str:
    return text if text.startswith("vLLM") else text[0].upper() + text[1:]


class Types:
    """The types, each after those that it has in it."""

    def __init__(self) -> None:
        """Begin with none."""
        self.made: dict[str, Type] = {}

    def add(self, found: Type) -> None:
        """Keep a type."""
        self.made[found.name] = found

    def fields(self, owner: type) -> Iterator[Field]:
        """Yield the fields of a class of arguments, or of a section.

        Raises:
            ValueError: one has no text, or a type that no schema has.
        """
        texts = texts_of(owner)
        # Pulumi's own Input names two types that its users' modules need not have.
        hints = typing.get_type_hints(owner, None, {"Output": pulumi.Output, "T": Any}, include_extras=True)
        for name, required, default in _own_fields(owner):
            if (owner.__name__, name) in LEFT_OUT:
                continue
            if name == "access":
                continue
            if name == "server":
                for server, text in SERVERS:
                    own = "vllm_server" if server is VllmServer else "custom_server"
                    yield Field(own, self.annotation(server), text)
                continue
            if name not in texts:
                raise ValueError(f"{owner.__name__}.{name}: its docstring does not say what it is for")
            text = _sentence(texts[name], hints[name], _limits(owner, name), default)
            yield Field(name, self.annotation(hints[name]), text, required)
        if owner in IN_CLUSTER:
            yield from CLUSTER

    def annotation(self, hint: Any) -> str:
        """Return a type as a TypedDict has it; adds those that are in it.

        Raises:
            ValueError: no schema has such a type.
        """
        hint = _bare(hint)
        origin, parts = get_origin(hint), get_args(hint)
        if hint == INPUT:
            return INPUT
        if origin in {typing.Union, types.UnionType}:
            return "str"  # one of several, which all can be said as text
        if origin is typing.Literal:
            return type(parts[0]).__name__
        if origin in {tuple, list, Sequence, Collection}:
            return f"list[{self.annotation(parts[0])}]"
        if origin in {dict, Mapping}:
            return f"dict[str, {self.annotation(parts[1])}]"
        if hint in {str, int, float, bool}:
            return str(hint.__name__)
        if hint is Path:
            return "str"
        if issubclass(hint, BaseModel) or dataclasses.is_dataclass(hint):
            if hint.__name__ not in self.made:
                fields = tuple(self.fields(hint))
                self.add(Type(hint.__name__, text_of(hint), fields))
            return str(hint.__name__)
        raise ValueError(f"{hint}: no schema has such a type; name it in LEFT_OUT, or say how it is written")


def _own_fields(owner: type) -> Iterator[tuple[str, bool, Any]]:
    """Yield name, whether it has to be given, and the default where that is a plain value."""
    if issubclass(owner, BaseModel):
        for name, field in owner.model_fields.items():
            plain = None if field.default is PydanticUndefined else field.default
            yield name, field.is_required(), plain
        return
    for one in dataclasses.fields(owner):  # type: ignore[arg-type]  # no section, so arguments
        required = one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
        yield one.name, required, None if one.default is dataclasses.MISSING else one.default


def _limits(owner: type, name: str) -> list[str]:
    field: FieldInfo | None = owner.model_fields.get(name) if issubclass(owner, BaseModel) else None
    signs = (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than"))
    return [
        f"{sign} {value}"
        for part in (field.metadata if field else ())
        for key, sign in signs
        if (value := getattr(part, key, None)) is not None
    ]


def _sentence(text: str, hint: Any, limits: list[str], default: Any) -> str:
    """Return the text of a field, with what is allowed, and what holds where it is not given."""
    found = f"{_capital(text.rstrip('.'))}."
    bare = _bare(hint)
    if get_origin(bare) is typing.Literal:
        found += f" One of: {', '.join(map(str, get_args(bare)))}."
    if limits:
        shown = ", ".join(limits)
        found += f" {_capital(shown)}."
    if isinstance(default, bool):
        found += f" Default: {str(default).lower()}."
    elif isinstance(default, str | int | float) and default != "":
        found += f" Default: {default}."
    elif isinstance(default, tuple) and default:
        found += f" Default: {' '.join(map(str, default))}."
    return found


def _bare(hint: Any) -> Any:
    """Return a type without None and without what checks it; an input stays one."""
    while True:
        origin, parts = get_origin(hint), get_args(hint)
        if origin is typing.Annotated:
            hint = parts[0]
        elif origin in {typing.Union, types.UnionType}:
            others = tuple(part for part in parts if part is not type(None))
            if Awaitable[str] in others:
                return INPUT
            texts = [part for part in others if part is str or get_origin(part) is typing.Literal]
            if len(others) > 1 and texts:
                return str
            if len(others) > 1:
                return hint
            hint = others[0]
        else:
            return hint


def all_types() -> list[Type]:
    """Return the types of all components' inputs, each after those that it has in it.

    Raises:
        ValueError: a field has no text, or a type that no schema has.
    """
    made = Types()
    for owner in (*ELSEWHERE, *IN_CLUSTER):
        fields = tuple(made.fields(owner))
        made.add(Type(owner.__name__, text_of(owner), fields))
    made.add(_image_options(made))
    made.add(_served_model(made))
    return list(made.made.values())


def _image_options(made: Types) -> Type:
    fields = [one for one in made.made["ModelcarImageArgs"].fields if one.name not in OF_A_MODEL]
    return Type("ImageOptions", "How the image of a ServedModel is built, named and signed.", tuple(fields))


def _served_model(made: Types) -> Type:
    """Return the inputs of image, policies and service together."""
    image = {one.name: one for one in made.made["ModelcarImageArgs"].fields}
    service = {one.name: one for one in made.made["ModelServiceArgs"].fields}
    service["storage_uri"] = Field(
        "storage_uri", INPUT, "An image that is there already; in place of lock and registry."
    )
    lock = Field("lock", "str", "Path of the model's lock, below the project. The image is built of it.")
    registry = dataclasses.replace(image["registry"], required=False)
    options = Field("image", "ImageOptions", "How the image is built, named and signed.")
    policies = (
        Field(
            "egress",
            made.annotation(EgressSettings),
            "What the pods may connect to; by default nothing but names.",
        ),
        Field("ingress", made.annotation(IngressSettings), "Who may connect to them; by default everybody."),
    )
    fields = {one.name: one for one in (lock, registry, image["project"], options)}
    fields |= service | {"lock": lock} | {one.name: one for one in policies}
    text = "What one model is made of, by what it is served, and where."
    return Type("ServedModelArgs", text, tuple(fields.values()))


def source(found: Sequence[Type]) -> str:
    """Return the module that holds the types."""
    names = {field.name for one in found for field in one.fields if "_" in field.name}
    return HEAD + "".join(f"\n\n{_class(one, names)}" for one in found)


def _class(one: Type, names: Collection[str]) -> str:
    """Return the source of one; names: of fields, which other languages have in another form."""
    lines = [f"class {one.name}(TypedDict):", f'    """{one.text}"""', ""]
    for field in one.fields:
        annotation = field.annotation if field.required else f"NotRequired[{field.annotation}]"
        lines.append(f"    {field.name}: {annotation}")
        text = re.sub(r"\b[a-z]+(_[a-z]+)+\b", lambda m: camel(m[0]) if m[0] in names else m[0], field.text)
        lines.append(f'    """{text}"""')  # in one line: other languages' documentation has it as it is
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the module where it differs."""
    text = source(all_types())
    if not TARGET.exists() or TARGET.read_text() != text:
        TARGET.write_text(text)
        print(TARGET.relative_to(PROJECT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
