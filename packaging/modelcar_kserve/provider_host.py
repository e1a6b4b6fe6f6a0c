"""Starts the components for other languages, and refuses what Pulumi's mapping would drop or misread."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pulumi
from pulumi.provider import ConstructResult, main
from pulumi.provider.experimental.component import ComponentProvider

from modelcar_kserve.modelcar.likely import likely

#: Why a value is refused that is not there yet when the component is made.
_LATER = (
    "an output of another resource, or something with a secret in it\n"
    "    allowed: a plain value; docs/package.md says which arguments may be outputs\n"
    "    fix: write its values down, or read them from the stack's configuration"
)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


#: What is allowed, by the schema's name of a type, and what tells it.
_TYPES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "string": ("a text", lambda value: isinstance(value, str)),
    "boolean": ("true or false", lambda value: isinstance(value, bool)),
    "number": ("a number", _is_number),
    "integer": ("a whole number", lambda value: _is_number(value) and float(value).is_integer()),
    "array": ("a list", lambda value: isinstance(value, list)),
    "object": ("an object with keys", lambda value: isinstance(value, Mapping)),
}


class HeldToSchema(ComponentProvider):
    """A component provider that takes what its schema says, and nothing else.

    Pulumi's own drops each name that the schema does not have, passes values of any type on, and maps a
    section that is an output, or no object, to an empty one: an image would be left unsigned, a model open to
    the cluster, and a pod would get the default GPU. Typed SDKs refuse such a program, as long as they are of
    the provider's own release; a program without an SDK is held by nothing.
    """

    def construct(
        self,
        name: str,
        resource_type: str,
        inputs: pulumi.Inputs,
        options: pulumi.ResourceOptions | None = None,
    ) -> ConstructResult:
        """Make a component.

        Raises:
            pulumi.InputPropertiesError: with each argument that the schema does not have, or not so.
        """
        schema = json.loads(self.schema or "{}")
        if (resource := schema["resources"].get(resource_type)) is not None:
            found = _Faults(schema).of_object(
                inputs, resource["inputProperties"], resource.get("requiredInputs", [])
            )
            if errors := [{"property_path": place, "reason": reason} for place, reason in found]:
                raise pulumi.InputPropertiesError(f"{name}: the arguments are not fit", errors)
        return super().construct(name, resource_type, inputs, options)


def serve(components: list[type[pulumi.ComponentResource]], name: str, version: str) -> None:
    """Serve components as Pulumi starts a provider.

    Args:
        components: their classes. name: of the package. version: of the package, and of its SDKs.
    """
    main(HeldToSchema(components, name, None, version), sys.argv[1:])


class _Faults:
    """What the schema does not allow: the place of each value, and the reason. No value is shown."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.types, self.version = schema["types"], schema["version"]

    def of_object(
        self,
        values: Mapping[str, Any],
        properties: Mapping[str, Any],
        required: list[str],
        above: str = "",
    ) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with a component's arguments, or with a section."""
        for name, value in values.items():
            if value is None:
                continue
            if name in properties:
                yield from self.of_value(value, properties[name], f"{above}{name}")
            else:
                yield f"{above}{name}", self._unknown(name, sorted(properties))
        for name in required:
            if values.get(name) is None:
                yield f"{above}{name}", _reason("not set", "a value: it has no default", f"set {above}{name}")

    def of_value(self, value: Any, known: Mapping[str, Any], place: str) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with one value, and with what is in it; known: what the schema says of it."""
        section = self.types.get(str(known.get("$ref", "")).removeprefix("#/types/"))
        kind = "object" if section else known.get("type")
        if isinstance(value, pulumi.Output | type(pulumi.UNKNOWN)):
            if known.get("plain"):
                yield place, _LATER
        elif kind == "string" and "." in place and _is_number(value):
            pass  # a section says itself which numbers it takes for texts, as in `cpu: 4`
        elif kind in _TYPES and not _TYPES[kind][1](value):
            yield place, _reason(_kind(value), _TYPES[kind][0], f"correct {place}")
        elif section:
            yield from self.of_object(value, section["properties"], section.get("required", []), f"{place}.")
        elif kind == "array":
            for number, one in enumerate(value):
                yield from self.of_value(one, known["items"], f"{place}[{number}]")
        elif kind == "object":
            # Of texts by name there are also labels, which Google's provider takes as outputs.
            values = known["additionalProperties"]
            for key, one in value.items():
                yield from self.of_value(one, {**values, "plain": "$ref" in values}, f"{place}.{key}")

    def _unknown(self, name: str, names: list[str]) -> str:
        fix = f"did you mean {close}?" if (close := likely(name, names)) else "remove it"
        newer = f"plugin {self.version}; an SDK of another release may have it"
        return _reason("unknown", ", ".join(names), f"{fix} ({newer})")


def _reason(found: str, allowed: str, fix: str) -> str:
    return f"{found}\n    allowed: {allowed}\n    fix: {fix}"


def _kind(value: Any) -> str:
    """Return what a value is, without showing it."""
    if isinstance(value, bool):
        return "true or false"
    kinds = {str: "a text", int | float: "a number", list: "a list", Mapping: "an object"}
    return next((text for kind, text in kinds.items() if isinstance(value, kind)), "of another type")
