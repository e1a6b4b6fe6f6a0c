"""Names and types of resource properties, read out of the source of the installed pulumi_gcp package.

Importing the package's classes takes seconds (compute/_inputs.py alone is 4.8 MB), so a class is cut out of
its file as text and only the return types of its getters are parsed. The files are generated, so every
class has the same form (`pulumi-language-python`, `gen.go`):

    @pulumi.getter(name="machineType")
    def machine_type(self) -> pulumi.Input[Optional[_builtins.str]]:
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

_GETTER = re.compile(
    r'    @pulumi\.getter(?:\(name="(\w+)"\))?\n(?:    @_utilities\.deprecated\(.*?\)\n)?'
    r"    def (\w+)\(self\) -> (.+?):\n",
    re.DOTALL,
)
_SCALARS = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}


class SdkError(Exception):
    """The pulumi_gcp package is missing or has another form than expected."""


@dataclass(frozen=True)
class Scalar:
    """A plain value; name: string, integer, number, boolean or any."""

    name: str


@dataclass(frozen=True)
class ListOf:
    """A list."""

    item: Type


@dataclass(frozen=True)
class MapOf:
    """A map with free keys."""

    item: Type


@dataclass(frozen=True)
class ObjectOf:
    """A nested block; module is a path under pulumi_gcp such as `container/_inputs`."""

    module: str
    name: str


Type = Scalar | ListOf | MapOf | ObjectOf


@dataclass(frozen=True)
class Field:
    """One property: its type, and whether it has to be given."""

    type: Type
    required: bool


@functools.lru_cache(maxsize=1)
def package_folder() -> Path:
    """Return the folder of pulumi_gcp, without importing it.

    Raises:
        SdkError: it is not installed beside this stand-in.
    """
    found = importlib.util.find_spec("pulumi_gcp")
    if found is None or not found.submodule_search_locations:
        raise SdkError(
            "the stand-in for pulumi-resource-gcp needs the package pulumi_gcp to know the properties. "
            "fix: pip install pulumi-gcp==10.2.0 into the environment that runs the stand-in"
        )
    return Path(found.submodule_search_locations[0])


@functools.cache
def source(module: str) -> str:
    """Return the text of a module such as `container/node_pool`."""
    try:
        return (package_folder() / f"{module}.py").read_text(encoding="utf-8")
    except OSError as error:
        raise SdkError(f"pulumi_gcp has no {module}.py: {error}. fix: install pulumi-gcp==10.2.0") from error


@functools.cache
def fields(module: str, name: str) -> dict[str, Field]:
    """Return the properties of a class by their names on the wire (camelCase)."""
    text = source(module)
    begin = max(text.find(f"\nclass {name}:"), text.find(f"\nclass {name}("))
    if begin < 0:
        raise SdkError(f"pulumi_gcp/{module}.py has no class {name}. fix: install pulumi-gcp==10.2.0")
    end = text.find("\nclass ", begin + 1)
    return {
        match[1] or match[2]: _field(match[3], module)
        for match in _GETTER.finditer(text, begin, end if end > 0 else len(text))
    }


def function_fields(module: str, name: str) -> dict[str, Field]:
    """Return the arguments of an invoke such as get_cluster by their names on the wire."""
    text = source(module)
    begin = text.index(f"\ndef {name}(")
    body = text[begin : text.index("\ndef ", begin + 1)]
    signature = body[: body.index(" -> ")]
    types = dict(re.findall(r"(\w+): (.+?) = None", signature))
    names = re.findall(r"__args__\['(\w+)'\] = (\w+)", body)
    return {wire: _field(types[python], module) for wire, python in names}


def _field(annotation: str, module: str) -> Field:
    tree = ast.parse(annotation, mode="eval").body
    return Field(_type(tree, module), "Optional[" not in annotation)


def _type(tree: ast.expr, module: str) -> Type:
    """Turn one annotation into a type: Input[…] and Optional[…] are looked through, of a Union the first."""
    if isinstance(tree, ast.Constant):  # a class by its name, in quotes
        folder = module.rpartition("/")[0]
        name = str(tree.value)
        file = "outputs" if name.startswith("outputs.") else "_inputs"
        return ObjectOf(f"{folder}/{file}" if folder else file, name.removeprefix("outputs."))
    if isinstance(tree, ast.Subscript):
        outer = ast.unparse(tree.value).rpartition(".")[2]
        parts = tree.slice.elts if isinstance(tree.slice, ast.Tuple) else [tree.slice]
        if outer == "Sequence":
            return ListOf(_type(parts[0], module))
        if outer == "Mapping":
            return MapOf(_type(parts[1], module))
        return _type(parts[0], module)
    return Scalar(_SCALARS.get(ast.unparse(tree).rpartition(".")[2], "any"))
